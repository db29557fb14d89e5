//! Serializes snapshots with serde: durations as seconds, addresses and places as text.

use std::panic::Location;
use std::time::Duration;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::{SocketAddress, SocketInfo, TaskInfo};

pub(super) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

// serde requires this signature.
#[allow(clippy::ref_option)]
pub(super) fn some_seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

fn place(place: &'static Location<'static>) -> String {
    format!("{}:{}", place.file(), place.line())
}

impl Serialize for TaskInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("TaskInfo", 14)?;
        fields.serialize_field("id", &self.id())?;
        fields.serialize_field("name", &self.name())?;
        fields.serialize_field("kind", &self.kind())?;
        fields.serialize_field("lane", &self.lane())?;
        fields.serialize_field("spawned_at", &self.spawned_at().map(place))?;
        fields.serialize_field("age", &self.age().as_secs_f64())?;
        fields.serialize_field("state", &self.state())?;
        fields.serialize_field("waits_for", &self.waits_for())?;
        fields.serialize_field("waits_for_more", &self.waits_for_more())?;
        fields.serialize_field("woken_by", &self.woken_by())?;
        fields.serialize_field("polls", &self.polls())?;
        fields.serialize_field("last_poll", &self.last_poll().as_secs_f64())?;
        fields.serialize_field("cpu", &self.cpu().as_secs_f64())?;
        fields.serialize_field("longest_poll", &self.longest_poll().as_secs_f64())?;
        fields.end()
    }
}

impl Serialize for SocketInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64());
        let mut fields = serializer.serialize_struct("SocketInfo", 24)?;
        fields.serialize_field("id", &self.id())?;
        fields.serialize_field("fd", &self.fd())?;
        fields.serialize_field("kind", self.kind())?;
        fields.serialize_field("local", &self.local())?;
        fields.serialize_field("peer", &self.peer())?;
        fields.serialize_field("host", &self.host())?;
        fields.serialize_field("state", &self.state())?;
        fields.serialize_field("poller_shard", &self.poller_shard())?;
        fields.serialize_field("age", &self.age().as_secs_f64())?;
        fields.serialize_field("readers", &self.readers())?;
        fields.serialize_field("writers", &self.writers())?;
        fields.serialize_field("waiting", self.waiting())?;
        fields.serialize_field("read_deadline", &seconds(self.read_deadline()))?;
        fields.serialize_field("write_deadline", &seconds(self.write_deadline()))?;
        fields.serialize_field("reads", &self.reads())?;
        fields.serialize_field("writes", &self.writes())?;
        fields.serialize_field("bytes_received", &self.bytes_received())?;
        fields.serialize_field("bytes_sent", &self.bytes_sent())?;
        fields.serialize_field("last_use", &seconds(self.last_use()))?;
        fields.serialize_field("gathered", &self.gathered())?;
        fields.serialize_field("errors", &self.errors())?;
        fields.serialize_field("last_errno", &self.last_errno())?;
        fields.serialize_field("limits", &self.limits())?;
        fields.serialize_field("tcp", &self.tcp())?;
        fields.end()
    }
}

impl Serialize for SocketAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
