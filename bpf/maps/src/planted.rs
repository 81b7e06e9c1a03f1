//! What can be planted in the object that tests load.

/// A bug that the tests have to find, or a fault that the programs have to bear.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Planted {
    /// Whatever looks like a reply passes, whether a connection is known or not.
    PolicySkippedForReplies = 1,
    /// The header's checksum of a packet that is given to a pod is wrong by one.
    ChecksumOffByOne = 2,
    /// A socket is told the wrong port of the service that it called, and an answer comes from there.
    WrongReverseEntry = 3,
    /// A service keeps the backends that it had when it was called first, by sockets and by packets.
    StaleBackend = 4,
    /// The kernel is asked to write where it does not let anyone write.
    RefusedWrite = 5,
    /// What is known of a flow counts whatever the maps say by now.
    KnownForever = 6,
}

impl Planted {
    /// Those that are bugs.
    pub const BUGS: [Self; 5] = [
        Self::PolicySkippedForReplies,
        Self::ChecksumOffByOne,
        Self::WrongReverseEntry,
        Self::StaleBackend,
        Self::KnownForever,
    ];
}
