//! The attributes `#[netpoll::main]` and `#[netpoll::test]`, for use through `netpoll`.
//!
//! The macros work directly on `proc_macro`'s tokens, because an attribute on one function does not
//! need a parser for all of Rust. So this crate has no dependencies.
//!
//! # Expansion
//!
//! ```text
//! #[netpoll::main]                         fn main() -> io::Result<()> {
//! async fn main() -> io::Result<()> {          async fn main() -> io::Result<()> { body }
//!     body                            =>       ::netpoll::task::block_on(main())
//! }                                        }
//! ```
//!
//! The inner function is the user's function, with the user's spans. So a type error is reported
//! where the wrong type was written, and names the declared return type. An async block in place of
//! the inner function would have no declared type. Attributes and visibility move to the outer
//! function. Lint levels that they set also apply to the inner function.
//!
//! `::netpoll` stands for the path in the argument `crate` or, without this argument, for the name
//! under which the compiled crate depends on netpoll.
//!
//! * `expand.rs` creates the expansion.
//! * `item.rs` parses a function, and `arguments.rs` the attribute's arguments.
//! * `manifest.rs` finds the name under which the compiled crate depends on netpoll.
//! * `diagnostic.rs` creates errors.
//!
//! `tests/messages.rs` runs the compiler on programs that must compile and on programs that must
//! not. netpoll's `tests/attributes.rs` and `ecosystem/renamed` contain functions that must also
//! run.

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
/// The function must be named `main`, be `async`, and take no arguments. It must not be generic,
/// `unsafe`, `const` or `extern`. It may return any type that `main` may return.
///
/// The body runs inside `block_on`, where `netpoll::rt::shutdown` returns an error. A program that
/// shuts the runtime down needs a plain `main`.
///
/// The runtime is already running when the body begins, so `netpoll::rt::Builder::start` fails
/// there. A program that changes settings for which there is no argument needs a plain `main`,
/// which calls `start` before `block_on`.
///
/// # Arguments
///
/// * `workers = N`: the maximum number of worker threads, as in `netpoll::rt::Builder::workers`.
///   tokio's name `worker_threads` is also accepted.
/// * `flavor = "current_thread"`: tasks run on the thread of `main`, as with
///   `netpoll::rt::Builder::single_threaded`. The value `"multi_thread"` is the default. `workers`
///   cannot be combined with `"current_thread"`.
/// * `crate = path`: the path of `netpoll`, quoted or not. It is needed if another crate re-exports
///   `netpoll`, in macros that expand to this attribute (`crate = $crate::…`), and in builds
///   without Cargo in which `netpoll` has another name. With Cargo, it is not needed for a renamed
///   dependency, whose name is in the `Cargo.toml` of the compiled package or of its workspace.
///
/// ```text
/// #[facade::netpoll::main(crate = facade::netpoll)]
/// async fn main() {}
/// ```
///
/// # Panics
///
/// With `workers` or `flavor = "current_thread"`, the program panics before the body of `main` runs
/// if the runtime cannot be started.
///
/// # Errors
///
/// Invalid arguments and functions are compile errors, which point at the invalid part.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(expand::Attribute::Main, arguments, item)
}

/// Makes an `async fn` a test, which runs to completion with `netpoll::task::block_on`.
///
/// ```text
/// #[netpoll::test]
/// async fn connects() -> std::io::Result<()> {
///     Ok(())
/// }
/// ```
///
/// The function must be `async`, and take no arguments except in a simulation. It must not be
/// generic, `unsafe`, `const` or `extern`. Other attributes are kept, including `#[should_panic]`
/// and `#[ignore]`. A `#[test]` below this attribute is not duplicated. Tests run in parallel, each
/// on its own thread, as usual.
///
/// [`main`](macro@main) describes the argument `crate` and errors. The tests of a program share one
/// runtime, except those with `paused` or `sim`, so there is no argument `workers`.
///
/// # With a virtual clock
///
/// A test with `#[netpoll::test(paused)]` runs in `netpoll::sim::paused`, with a virtual clock and
/// real sockets. It needs the feature `sim` of netpoll.
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
/// * `sim`: the test runs in a simulation (feature `sim` of netpoll), and may take a `Sim`. If the
///   test function returns an error, the test fails.
/// * `seeds = N`: the test runs with the seeds 0 to N - 1, one after the other, until a run fails.
///   The default is one run, with the seed 0. The environment variable `NETPOLL_SEEDS` overrides N.
///   A failing run prints its seed. To repeat the run, set `NETPOLL_SEED` to this seed.
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(expand::Attribute::Test, arguments, item)
}
