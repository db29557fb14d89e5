//! The attributes `#[netpoll::main]` and `#[netpoll::test]`, for use through `netpoll`.
//!
//! They are written directly on `proc_macro`'s tokens: an attribute on one function does not need a
//! parser for all of Rust, so the macros add only this crate to a build.
//!
//! # What they expand to
//!
//! ```text
//! #[netpoll::main]                         fn main() -> io::Result<()> {
//! async fn main() -> io::Result<()> {          async fn main() -> io::Result<()> { body }
//!     body                            =>       ::netpoll::task::block_on(main())
//! }                                        }
//! ```
//!
//! The inner function is the user's own, with the user's spans: a wrong type is reported where it
//! was written, against the return type that it belongs to, which a bare async block would not do.
//! Attributes and visibility move to the outer function, and lint levels apply to the inner one
//! from there.
//!
//! `::netpoll` stands for the name under which the compiled crate depends on netpoll.
//!
//! * `item.rs` parses a function, `arguments.rs` the attribute's arguments.
//! * `manifest.rs` finds the name of netpoll. `diagnostic.rs` creates errors.
//!
//! Tests: `tests/messages.rs` runs the compiler on programs that must fail. netpoll's
//! `tests/attributes.rs` and `ecosystem/renamed` run programs that must work.

mod arguments;
mod diagnostic;
mod expand;
mod item;
mod manifest;

use proc_macro::TokenStream;

/// Runs `async fn main` to completion with `netpoll::task::block_on`.
///
/// ```text
/// #[netpoll::main]
/// async fn main() -> std::io::Result<()> {
///     Ok(())
/// }
/// ```
///
/// The function must be called `main`, be `async`, take no arguments and not be generic. It may
/// return anything that `main` may return. Runtime settings other than the number of workers are
/// made in the program, with `netpoll::rt::Builder`.
///
/// # Arguments
///
/// * `workers = N`: the number of threads that run tasks. If they cannot be started, the program
///   panics before `main` runs. tokio's name `worker_threads` is accepted too, as is its `flavor =
///   "multi_thread"`, which has no effect.
/// * `crate = path`: the path of `netpoll`, quoted or not. A renamed dependency does not need it:
///   its name is found in the `Cargo.toml` of the compiled package or of its workspace. It is for a
///   crate that re-exports `netpoll`, for macros that expand to this attribute (`crate =
///   $crate::…`), and for builds without Cargo.
///
/// ```text
/// #[facade::netpoll::main(crate = facade::netpoll)]
/// async fn main() {}
/// ```
///
/// # Errors
///
/// Anything else is a compile error that points at the fault and says what was expected.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(expand::Attribute::Main, arguments, item)
}

/// Turns an `async fn` into a test, which runs to completion with `netpoll::task::block_on`.
///
/// ```text
/// #[netpoll::test]
/// async fn connects() -> std::io::Result<()> {
///     Ok(())
/// }
/// ```
///
/// The function must be `async`, take no arguments and not be generic. Other attributes remain,
/// including `#[should_panic]` and `#[ignore]`; a `#[test]` below this attribute is not duplicated.
/// As always, tests run in parallel, each on its own thread.
///
/// For arguments and errors see [`main`](macro@main). All tests of a program share one runtime, so
/// there is no `workers`.
///
/// # With a virtual clock
/// `#[netpoll::test(paused)]` needs the feature `sim` of netpoll: the test runs in `netpoll::sim::paused`,
/// with a virtual clock and real sockets.
///
/// # In a simulation
///
/// ```text
/// #[netpoll::test(sim, seeds = 100)]
/// async fn silent_clients_are_dropped(sim: netpoll::sim::Sim) -> std::io::Result<()> {
///     sim.host("server").spawn(|| my_server::run("0.0.0.0:80"));
///     Ok(())
/// }
/// ```
///
/// * `sim`: the test runs in a simulation (feature `sim` of netpoll), and may take a `Sim`. An error
///   that it returns fails it.
/// * `seeds = N`: the test runs with the seeds 0 to N - 1, one after the other; without it, once. A
///   failing run prints its seed, and with `NETPOLL_SEED` set that run is repeated.
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(expand::Attribute::Test, arguments, item)
}
