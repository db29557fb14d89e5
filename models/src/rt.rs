//! The crate's `rt`, as far as it is modelled.

#[path = "../../src/rt/waiters.rs"]
pub(crate) mod waiters;

/// The crate's module makes system calls; what the files of this tree use of it is here.
pub(crate) mod poller {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Direction {
        Read,
        Write,
    }
}
