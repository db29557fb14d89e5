//! The crate's `net`, as far as it is modelled.

pub(crate) mod fd;
