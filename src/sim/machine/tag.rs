//! `Tag`: the simulation and the host to which a task belongs.

/// The owner of a task; see the [module documentation](self). The default belongs to no simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) world: u32,
    pub(crate) host: u16,
    /// The number of times that the host's tasks had been ended when this task was spawned.
    pub(crate) life: u16,
}
