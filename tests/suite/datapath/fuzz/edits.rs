//! What is read from frames, and done to them, for the model.

use landbridge_bpf_loader::maps::{Address, Endpoint, Reason};
use landbridge_bpf_verdict::{Flow, Fragment, Scope, parse};

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

/// One end of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

/// The numbers of the protocols.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Replaces one end of the packet in a frame, which `flow` is of.
pub(super) fn rewrite(
    frame: &mut [u8],
    flow: &Flow,
    end: End,
    to: &Address,
    port: [u8; 2],
) -> Result<(), Reason> {
    let mut edit = Edit { frame, version: flow.version };
    edit.replace_end(flow, end, to, port).ok_or(Reason::WRITE_FAILED)
}

struct Edit<'a> {
    frame: &'a mut [u8],
    version: u8,
}

impl Edit<'_> {
    fn replace_end(&mut self, flow: &Flow, end: End, to: &Address, port: [u8; 2]) -> Option<()> {
        let at = usize::from(flow.transport);
        let is_source = end == End::Source;
        let (from, old_port) = match end {
            End::Source => (flow.origin, flow.source_port),
            End::Destination => (flow.destination, flow.destination_port),
        };
        let checksum = at
            + match flow.policy_protocol {
                TCP => 16,
                UDP => 6,
                _ => 2,
            };
        // Of UDP none stays none.
        let is_udp = flow.policy_protocol == UDP;
        let begins = flow.fragment != Fragment::LATER;
        if !is_source || flow.origin == flow.source {
            if self.version == 4 {
                self.sum(24, &from.0, &to.0, false)?;
            }
            if begins && flow.policy_protocol != ICMP {
                self.sum(checksum, &from.0, &to.0, is_udp)?;
            }
            self.write_address(14, is_source, to)?;
        }
        if !begins {
            return Some(());
        }
        if !flow.is_error() {
            return self.write_port(checksum, at + if is_source { 0 } else { 2 }, old_port, port, is_udp);
        }
        // What an error quotes went the other way.
        let quoted = at + 8;
        let transport = if self.version == 4 {
            self.sum(quoted + 10, &from.0, &to.0, false)?;
            quoted + usize::from(*self.frame.get(quoted)? & 0xf) * 4
        } else {
            self.sum(checksum, &from.0, &to.0, false)?;
            quoted + 40
        };
        self.write_address(quoted, !is_source, to)?;
        self.write_port(checksum, transport + if is_source { 2 } else { 0 }, old_port, port, false)
    }

    fn write_address(&mut self, header: usize, is_source: bool, to: &Address) -> Option<()> {
        let (place, bytes) = match (self.version, is_source) {
            (4, true) => (12, &to.0[12..]),
            (4, false) => (16, &to.0[12..]),
            (_, true) => (8, &to.0[..]),
            (_, false) => (24, &to.0[..]),
        };
        self.frame.get_mut(header + place..)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(())
    }

    fn write_port(
        &mut self,
        checksum: usize,
        at: usize,
        from: [u8; 2],
        to: [u8; 2],
        is_udp: bool,
    ) -> Option<()> {
        if from == to {
            return Some(());
        }
        self.sum(checksum, &from, &to, is_udp)?;
        self.frame.get_mut(at..at + 2)?.copy_from_slice(&to);
        Some(())
    }

    /// RFC 1624, equation 3: HC' = ~(~HC + ~m + m'). What both have in front, of an IPv4 address, changes nothing.
    fn sum(&mut self, checksum: usize, from: &[u8], to: &[u8], none_is_none: bool) -> Option<()> {
        let place = self.frame.get_mut(checksum..checksum + 2)?;
        let old = u16::from_be_bytes([place[0], place[1]]);
        if none_is_none && old == 0 {
            return Some(());
        }
        let words = |bytes: &[u8]| -> Vec<u16> {
            bytes.chunks(2).map(|word| u16::from_be_bytes([word[0], word[1]])).collect()
        };
        let changed = words(from).into_iter().map(|word| !word).chain(words(to));
        // One more of all ones, which is 0 as well, so that the sum never is none at all.
        let mut sum: u32 = u32::from(!old) + 0xffff + changed.map(u32::from).sum::<u32>();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let new = match !u16::try_from(sum).expect("folded") {
            0 if none_is_none => 0xffff,
            new => new,
        };
        place.copy_from_slice(&new.to_be_bytes());
        Some(())
    }
}
