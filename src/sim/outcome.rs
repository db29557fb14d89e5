//! `Outcome`: the result of a test, or of the program of a host.

use std::fmt::Debug;

/// The result of a test or of a host's program: `()` or a `Result`.
#[diagnostic::on_unimplemented(
    note = "a test or program returns `()` or a `Result`",
    note = "put a loop without an end into an `async fn` that returns a `Result`: `async fn serve() -> std::io::Result<()>`"
)]
pub trait Outcome {
    /// Returns a description of the failure, if there is one.
    fn failure(&self) -> Option<String>;
}

impl Outcome for () {
    fn failure(&self) -> Option<String> {
        None
    }
}

impl<T, E: Debug> Outcome for Result<T, E> {
    fn failure(&self) -> Option<String> {
        self.as_ref().err().map(|error| format!("{error:?}"))
    }
}
