//! What is allowed.

/// A set of rules in the `POLICY` map, shared by all endpoints that have the same rules in a direction. A set is never
/// changed so that it means something else: an endpoint is pointed at another set in one write.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicySet(pub u32);

impl PolicySet {
    /// Everything is allowed.
    pub const NOT_ENFORCED: Self = Self(0);
}

/// What the `peer` of a [`PolicyKey`] is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKind {
    /// One identity.
    Identity = 0,
    /// Every identity of the cluster with this id.
    Cluster = 1,
    /// Every allocated identity, whichever cluster it is of; `peer` is 0.
    Mesh = 2,
    /// Whoever it is; `peer` is 0.
    Any = 3,
}

/// Key of the `POLICY` map, a `BPF_MAP_TYPE_HASH`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// The set.
    pub set: PolicySet,
    /// The other side, see [`PeerKind`].
    pub peer: u32,
    /// Destination port, network byte order, of ICMP the type. The bits after the first `port_bits` are 0.
    pub port: [u8; 2],
    /// IP protocol number; 0 for every protocol, which then is about every port.
    pub protocol: u8,
    /// A [`PeerKind`].
    pub kind: u8,
    /// How many of the first bits of a port have to be those of `port`: [`ONE_PORT`](Self::ONE_PORT) for one port, 0 for
    /// every port, `n` in between for a range of 2^(16-n) ports, which endpoints have to know of, see
    /// [`Endpoint::port_prefixes`](crate::Endpoint::port_prefixes).
    pub port_bits: u8,
    /// 0; for later use.
    pub reserved: [u8; 3],
}

impl PolicyKey {
    /// [`port_bits`](Self::port_bits) of a key that is about one port.
    pub const ONE_PORT: u8 = 16;
}

/// Forms that keys of a set can have, but for ranges of ports: a bit for each way to name the peer and the port.
///
/// A packet is looked up once for each form; policies use one or two of them.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyForms(pub u16);

impl KeyForms {
    /// All twelve.
    pub const ALL: Self = Self(0xfff);
    /// For one way to name the peer: one port, all of a protocol, all.
    const PER_PEER: u8 = 3;

    /// The form of a key; none of one that is about a range of ports.
    #[inline]
    #[must_use]
    pub const fn of(key: &PolicyKey) -> Self {
        let port = match (key.protocol, key.port_bits) {
            (0, _) => 2,
            (_, 0) => 1,
            (_, PolicyKey::ONE_PORT) => 0,
            _ => return Self(0),
        };
        Self(1 << (key.kind * Self::PER_PEER + port))
    }

    /// What none of these keys has.
    #[must_use]
    pub fn lacked_by<'a>(keys: impl IntoIterator<Item = &'a PolicyKey>) -> Self {
        Self(keys.into_iter().fold(Self::ALL.0, |lacked, key| lacked & !Self::of(key).0))
    }

    /// Whether one of `other` is among these.
    #[inline]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What an entry says.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyVerdict {
    /// Let it pass, unless another entry denies it.
    Allow = 1,
    /// Drop it, whatever other entries say.
    Deny = 2,
}

/// Value of the `POLICY` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyEntry {
    /// A [`PolicyVerdict`].
    pub verdict: u8,
    /// 0; for later use.
    pub reserved: [u8; 3],
    /// For people: which rule it came from. 0 if nobody asked.
    pub rule: u32,
}
