//! The attributes `#[netpoll::main]` and `#[netpoll::test]`, to be used through `netpoll`.
//!
//! Written over `proc_macro`'s tokens: an attribute on one function needs no parser for all of Rust, and without one the macros
//! add a crate of their own and nothing else to a build.
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
//! The inner function is the user's own, with the user's spans: a wrong type is reported where it was written, against the return
//! type it belongs to, which a bare async block would not do. Attributes and visibility go to the outer one, and lint levels
//! reach the inner one from there.
//!
//! `::netpoll` stands for the name under which the crate that is compiled depends on netpoll.
//!
//! `item.rs` takes a function apart, `arguments.rs` reads the attribute's arguments, `manifest.rs` finds that name, `diagnostic.rs` makes
//! errors. Tests: `tests/messages.rs` runs the compiler on programs that must fail, netpoll's `tests/attributes.rs` and
//! `ecosystem/renamed` run programs that must work.

mod arguments;
mod diagnostic;
mod expand;
mod item;
mod manifest;

use proc_macro::TokenStream;

/// Runs `async fn main` to its end with `netpoll::task::block_on`.
///
/// ```text
/// #[netpoll::main]
/// async fn main() -> std::io::Result<()> {
///     Ok(())
/// }
/// ```
///
/// The function is called `main`, is `async`, takes no arguments and is not generic; what it returns is up to it, as with any
/// `main`. Runtime settings beyond the number of workers are made in the program, with `netpoll::rt::Builder`.
///
/// # Arguments
///
/// * `workers = N`: how many threads run tasks; before it runs, the program ends with a panic if there cannot be so many. Also as
///   `worker_threads`, tokio's word for it; its `flavor = "multi_thread"` says nothing here and is accepted.
/// * `crate = path`: the path of `netpoll`, in quotes or without. A renamed dependency needs no argument: its name is found in the
///   `Cargo.toml` of the package that is compiled, or of its workspace. The argument is for a crate that re-exports `netpoll`, for
///   macros that expand to this attribute (`crate = $crate::…`), and for builds without Cargo.
///
/// ```text
/// #[facade::netpoll::main(crate = facade::netpoll)]
/// async fn main() {}
/// ```
///
/// # Errors
///
/// Anything else is a compile error that says what was expected and points at it.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(expand::Attribute::Main, arguments, item)
}

/// Makes `async fn` a test, run to its end with `netpoll::task::block_on`.
///
/// ```text
/// #[netpoll::test]
/// async fn connects() -> std::io::Result<()> {
///     Ok(())
/// }
/// ```
///
/// The function is `async`, takes no arguments and is not generic. Other attributes stay, `#[should_panic]` and
/// `#[ignore]` among them; a `#[test]` below this one is not doubled. Tests run beside each other on threads of their own, as
/// always.
///
/// Arguments and errors: see [`main`](macro@main); all tests of a program share one runtime, so there is no `workers`.
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(expand::Attribute::Test, arguments, item)
}
