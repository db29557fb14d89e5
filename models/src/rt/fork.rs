//! The parts of the crate's `rt::fork` that the models use.

pub(crate) fn is_child() -> bool {
    false
}
