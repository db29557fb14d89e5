//! The snapshot for serde: durations as seconds, addresses and places as text.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::SocketAddress;

pub(super) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

// The signature is serde's.
#[allow(clippy::ref_option)]
pub(super) fn some_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

#[allow(clippy::ref_option)]
pub(super) fn text<S: Serializer>(text: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(serializer)
}

#[allow(clippy::ref_option)]
pub(super) fn place<S: Serializer>(
    place: &Option<&'static Location<'static>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    place.map(|place| format!("{}:{}", place.file(), place.line())).serialize(serializer)
}

impl Serialize for SocketAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
