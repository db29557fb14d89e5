//! `Tag`: which simulation, and which host in it, a task belongs to.

/// See the module's header. The default belongs to none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) world: u32,
    pub(crate) host: u16,
    /// How often the host's tasks had been ended when this one was spawned.
    pub(crate) life: u16,
}
