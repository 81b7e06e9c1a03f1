//! Types that stand in JSON as their text.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::LabelKey;
use crate::{ClusterName, IpPrefix, ObjectName, Protocol};

macro_rules! as_text {
    ($($type:ty),+) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    )+};
}

as_text!(ClusterName, IpPrefix, LabelKey, ObjectName, Protocol);
