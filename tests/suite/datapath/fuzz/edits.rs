//! What is read from frames, and done to them, for the model.

use landbridge_bpf_loader::maps::{Endpoint, Reason};
use landbridge_bpf_verdict::{Flow, Scope, parse};

/// What a frame says; nothing if it is said to the link.
pub(super) fn read(frame: &[u8]) -> Result<Option<Flow>, Reason> {
    let mut flow = Flow::default();
    let scope = parse(frame, &mut flow)?;
    Ok((scope == Scope::Network).then_some(flow))
}

/// Replaces what is in the frame, and sends it back to whom it came from.
pub(super) fn answer(frame: &mut Vec<u8>, packet: &[u32]) {
    let (to, from) = frame[..12].split_at(6);
    let ends = [from, to].concat();
    frame[..12].copy_from_slice(&ends);
    frame.truncate(14);
    frame.extend(packet.iter().flat_map(|word| word.to_ne_bytes()));
}

/// Makes the frame one for a pod: a router's work.
pub(super) fn deliver(receiver: &Endpoint, frame: &mut [u8], flow: &Flow) {
    frame[0..6].copy_from_slice(&receiver.mac);
    frame[6..12].copy_from_slice(&receiver.host_mac);
    if flow.version == 6 {
        frame[21] -= 1;
        return;
    }
    // RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
    let word = |frame: &[u8], place: usize| u16::from_be_bytes([frame[place], frame[place + 1]]);
    let before = word(frame, 22);
    frame[22] -= 1;
    let after = word(frame, 22);
    let sum = [!word(frame, 24), !before, after].into_iter().map(u32::from).sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    frame[24..26].copy_from_slice(&(!u16::try_from(folded).expect("folded")).to_be_bytes());
}
