//! A replacement for the part of the crate's `rt::fork` that the models use. No model forks.

pub(crate) fn is_child() -> bool {
    false
}
