//! A call of gRPC without a network: messages in and out, between their length and JSON.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version, header};
use http_body_util::BodyExt;
use prost::Message;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::grpc::Peer;
use crate::held::Held;

/// What gRPC has before each message: whether it is compressed, and its length in four bytes.
const HEAD: usize = 5;

/// A message from JSON, framed. Fields that nobody knows are left out, as in etcd.
pub(super) fn message(descriptor: &MessageDescriptor, json: &[u8]) -> Result<Bytes, Status> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut json, &options)
        .map_err(|error| Status::invalid_argument(format!("proto: {error}")))?;
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(HEAD + length);
    framed.put_u8(0);
    framed
        .put_u32(u32::try_from(length).map_err(|_| Status::resource_exhausted("the message is too large"))?);
    message.encode(&mut framed).map_err(|error| Status::internal(error.to_string()))?;
    Ok(framed.freeze())
}

/// A message as JSON: without what is not set, with the names of the descriptor and 64 bits as text.
pub(super) fn json(descriptor: &MessageDescriptor, message: Bytes) -> Result<String, Status> {
    let internal = |error: String| Status::internal(format!("landbridge: {error}"));
    let message =
        DynamicMessage::decode(descriptor.clone(), message).map_err(|error| internal(error.to_string()))?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut json = Vec::new();
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut json), &options)
        .map_err(|error| internal(error.to_string()))?;
    String::from_utf8(json).map_err(|error| internal(error.to_string()))
}

/// A call as the network would bring it, with what `headers` say of it, on the connection for which `held` is held. It comes
/// from nobody: the user is in the token.
pub(super) fn request(
    method: &MethodDescriptor,
    headers: &HeaderMap,
    held: Option<&Held>,
    messages: Body,
) -> Request<Body> {
    let mut request = Request::new(messages);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    // The names in a descriptor have nothing that a path could not have.
    if let Ok(path) = path.parse() {
        *request.uri_mut() = path;
    }
    request.extensions_mut().insert(Peer::default());
    if let Some(held) = held {
        request.extensions_mut().insert(held.clone());
    }
    let to = request.headers_mut();
    for (name, value) in headers {
        if name == header::AUTHORIZATION || name == "grpc-timeout" {
            to.append(name, value.clone());
        } else if let Some(name) = name.as_str().strip_prefix("grpc-metadata-")
            && !name.starts_with("grpc-")
            && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
        {
            to.append(name, value.clone());
        }
    }
    to.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    to.insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

/// The answers of a call, as JSON.
#[derive(Debug)]
pub(super) struct Replies {
    body: Body,
    descriptor: MessageDescriptor,
    buffer: BytesMut,
    /// Set once there is nothing more.
    end: Option<Result<(), Status>>,
}

impl Replies {
    pub(super) fn new(response: Response<Body>, descriptor: MessageDescriptor) -> Self {
        let (head, body) = response.into_parts();
        let end = end(&head.headers);
        Self { body, descriptor, buffer: BytesMut::new(), end }
    }

    /// The next answer; nothing once the call has ended well.
    pub(super) async fn next(&mut self) -> Option<Result<String, Status>> {
        loop {
            if let Some(message) = self.framed() {
                return Some(json(&self.descriptor, message));
            }
            if let Some(end) = self.end.replace(Ok(())) {
                return end.err().map(Err);
            }
            self.end = match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.buffer.extend_from_slice(&data);
                        None
                    }
                    Err(frame) => frame.trailers_ref().and_then(end),
                },
                Some(Err(status)) => Some(Err(status)),
                None => Some(Ok(())),
            };
        }
    }

    /// The next message that is there as a whole.
    fn framed(&mut self) -> Option<Bytes> {
        let mut head = self.buffer.get(1..HEAD)?;
        let length = usize::try_from(head.get_u32()).ok()?;
        if self.buffer.len() - HEAD < length {
            return None;
        }
        self.buffer.advance(HEAD);
        Some(self.buffer.split_to(length).freeze())
    }
}

/// How the call has ended, if these headers or trailers say so.
fn end(headers: &HeaderMap) -> Option<Result<(), Status>> {
    let status = Status::from_header_map(headers)?;
    Some(if status.code() == Code::Ok { Ok(()) } else { Err(status) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost_reflect::DescriptorPool;

    use super::*;
    use crate::grpc::proto::DESCRIPTORS;

    fn descriptor(name: &str) -> MessageDescriptor {
        DescriptorPool::decode(DESCRIPTORS).unwrap().get_message_by_name(name).unwrap()
    }

    fn round(name: &str, text: &str) -> Result<String, Status> {
        let descriptor = descriptor(name);
        let message = message(&descriptor, text.as_bytes())?;
        json(&descriptor, message.slice(HEAD..))
    }

    #[test]
    fn names_and_numbers_are_taken_as_they_come_and_given_as_etcd_does() {
        let range = |text| round("etcdserverpb.RangeRequest", text).unwrap();
        let expected = r#"{"key":"Zm9v","range_end":"/+8=","limit":"10"}"#;
        assert_eq!(range(r#"{"key":"Zm9v","rangeEnd":"_-8","limit":1e1,"revision":null}"#), expected);
        assert_eq!(range(r#"{"key":"Zm9v","range_end":"/+8=","limit":"10","nobody":{"knows":1}}"#), expected);
        let sorted = r#"{"sort_order":"DESCEND","sort_target":"MOD"}"#;
        assert_eq!(range(r#"{"sort_order":"DESCEND","sort_target":3}"#), sorted);
        assert_eq!(range(r#"{"sort_order":"SIDEWAYS"}"#), "{}");
    }

    #[test]
    fn what_is_of_another_kind_is_refused() {
        for wrong in [
            "",
            "[]",
            "null",
            r#"{"key":1}"#,
            r#"{"key":"!"}"#,
            r#"{"limit":"x"}"#,
            r#"{"limit":1.5}"#,
            r#"{"serializable":"true"}"#,
            r#"{"key":"Zm9v""#,
        ] {
            let refused = round("etcdserverpb.RangeRequest", wrong).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{wrong}");
        }
        let deep = r#"{"success":[{"request_txn":"#.repeat(1000) + "{}" + &"}]}".repeat(1000);
        assert_eq!(round("etcdserverpb.TxnRequest", &deep).unwrap_err().code(), Code::InvalidArgument);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail(text: String, bytes: Vec<u8>) {
            for name in ["etcdserverpb.TxnRequest", "etcdserverpb.WatchRequest", "v3electionpb.ProclaimRequest"] {
                let descriptor = descriptor(name);
                let _ = message(&descriptor, text.as_bytes());
                let _ = message(&descriptor, &bytes);
                let _ = json(&descriptor, bytes.clone().into());
            }
        }

        #[test]
        fn bytes_of_a_key_come_back(key: Vec<u8>, limit: i64, serializable: bool) {
            use base64::Engine;
            let key = base64::engine::general_purpose::STANDARD.encode(key);
            let text = serde_json::json!({ "key": key, "limit": limit.to_string(), "serializable": serializable });
            let back: serde_json::Value =
                serde_json::from_str(&round("etcdserverpb.RangeRequest", &text.to_string()).unwrap()).unwrap();
            prop_assert_eq!(back["key"].as_str().unwrap_or_default(), key);
            prop_assert_eq!(back["limit"].as_str().unwrap_or("0"), limit.to_string());
            prop_assert_eq!(back["serializable"].as_bool().unwrap_or_default(), serializable);
        }
    }
}
