//! What a message of a watch means.

use etcd_client::EventType;
use etcd_client::proto::{PbEvent, PbWatchResponse};

use super::state::{Change, Input};
use crate::call::Call;
use crate::error::ClientError;
use crate::key_range::KeyRange;
use crate::key_value::{Header, KeyValue};

/// The id of answers that are for all watches of a stream.
const WHOLE_STREAM: i64 = -1;

/// The meaning of `message` to the one watch of its stream, over `range`; and the keys that it skips as not UTF-8.
pub(crate) fn meaning(
    message: PbWatchResponse,
    range: &KeyRange,
    call: &Call,
) -> Result<(Input, Vec<Vec<u8>>), ClientError> {
    let malformed = |what| ClientError::Malformed { call: call.clone(), what };
    if message.canceled && message.compact_revision != 0 {
        return Ok((Input::Forgotten, Vec::new()));
    }
    if message.canceled {
        let reason =
            if message.cancel_reason.is_empty() { "no reason given" } else { &message.cancel_reason };
        return Err(ClientError::WatchEnded { call: call.clone(), reason: reason.to_owned() });
    }
    let header = Header::from_wire(message.header.as_ref());
    let header = header.ok_or_else(|| malformed("it does not name its cluster"))?;
    if message.created {
        return Ok((Input::Watching(header), Vec::new()));
    }
    if message.events.is_empty() {
        let requested = message.watch_id == WHOLE_STREAM;
        return Ok((Input::Progress { header, requested }, Vec::new()));
    }
    let mut skipped = Vec::new();
    let mut changes = Vec::with_capacity(message.events.len());
    for event in message.events {
        match change(event, range).map_err(malformed)? {
            Ok(change) => changes.push(change),
            Err(key) => skipped.push(key),
        }
    }
    Ok((Input::Changes(header, changes), skipped))
}

/// One change, or its key if that is not UTF-8.
fn change(event: PbEvent, range: &KeyRange) -> Result<Result<Change, Vec<u8>>, &'static str> {
    let event_type = EventType::try_from(event.r#type).map_err(|_| "an event is of an unknown type")?;
    let key_value = event.kv.ok_or("an event has no key")?;
    if !range.contains(&key_value.key) {
        return Err("an event is of a key that was not asked for");
    }
    Ok(KeyValue::from_wire(key_value).map(|key_value| match event_type {
        EventType::Put => Change::Put(key_value),
        EventType::Delete => Change::Delete { key: key_value.key, revision: key_value.mod_revision },
    }))
}

#[cfg(test)]
mod tests {
    use etcd_client::proto::{PbKeyValue, PbResponseHeader};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn call() -> Call {
        Call { operation: "watch", key: "k/".into(), endpoint: "http://store".into() }
    }

    fn message() -> PbWatchResponse {
        let header = PbResponseHeader { cluster_id: 1, revision: 7, ..PbResponseHeader::default() };
        PbWatchResponse { header: Some(header), ..PbWatchResponse::default() }
    }

    fn event(event_type: i32, key: &[u8]) -> PbEvent {
        let kv = PbKeyValue { key: key.to_vec(), mod_revision: 7, ..PbKeyValue::default() };
        PbEvent { r#type: event_type, kv: Some(kv), prev_kv: None }
    }

    fn meaning_of(message: PbWatchResponse) -> Result<(Input, Vec<Vec<u8>>), ClientError> {
        meaning(message, &KeyRange::of_prefix("k/"), &call())
    }

    #[test]
    fn an_empty_value_is_a_put_and_unreadable_keys_are_skipped() {
        let events = vec![event(0, b"k/a"), event(1, b"k/\xff"), event(1, b"k/b")];
        let (input, skipped) = meaning_of(PbWatchResponse { events, ..message() }).unwrap();
        let Input::Changes(_, changes) = input else { panic!("{input:?}") };
        assert!(matches!(&changes[0], Change::Put(kv) if kv.key == "k/a" && kv.value.is_empty()));
        assert_eq!(changes[1], Change::Delete { key: "k/b".into(), revision: 7 });
        assert_eq!(skipped, [b"k/\xff"]);
    }

    #[test]
    fn a_hostile_message_is_an_error_not_a_panic() {
        for events in [vec![event(2, b"k/a")], vec![event(0, b"l")], vec![PbEvent::default()]] {
            meaning_of(PbWatchResponse { events, ..message() }).unwrap_err();
        }
        meaning_of(PbWatchResponse::default()).unwrap_err();
    }

    proptest! {
        /// Bytes of a store that nobody trusts: what is no message, and what makes no sense as one.
        #[test]
        fn messages_that_were_changed_are_refused_or_mean_something(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut: prop::sample::Index,
        ) {
            let events = vec![event(0, b"k/a"), event(1, b"k/b")];
            let mut bytes = PbWatchResponse { events, watch_id: 3, ..message() }.encode_to_vec();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
                let Ok(message) = PbWatchResponse::decode(bytes) else { continue };
                if let Ok((Input::Changes(_, changes), _)) = meaning_of(message) {
                    let is_asked_for = |change: &Change| match change {
                        Change::Put(kv) => kv.key.starts_with("k/"),
                        Change::Delete { key, .. } => key.starts_with("k/"),
                    };
                    prop_assert!(changes.iter().all(is_asked_for), "{changes:?}");
                }
            }
        }
    }

    #[test]
    fn a_cancel_is_a_compaction_or_an_end() {
        let compacted = PbWatchResponse { canceled: true, compact_revision: 5, ..message() };
        assert!(matches!(meaning_of(compacted), Ok((Input::Forgotten, _))));
        let denied = PbWatchResponse { created: true, canceled: true, watch_id: -1, ..message() };
        assert!(matches!(meaning_of(denied), Err(ClientError::WatchEnded { .. })));
    }
}
