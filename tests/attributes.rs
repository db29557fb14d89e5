//! `#[netpoll::main]` and `#[netpoll::test]`: uses that must compile and run. Uses that must not compile, with their messages, are in
//! the macro crate's `tests/messages.rs`.
#![cfg(feature = "attributes")]

mod common;

use std::io;
use std::process::ExitCode;

#[netpoll::test]
async fn returns_nothing() {
    netpoll::task::yield_now().await;
}

#[netpoll::test]
async fn returns_a_result() -> io::Result<()> {
    let text = async { io::Result::Ok("text") }.await?;
    assert_eq!(text, "text");
    Ok(())
}

#[netpoll::test]
async fn returns_a_type_with_braces_and_arrows() -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
    let double: fn(u8) -> u8 = |n| n * 2;
    if double(1) == 2 {
        return Ok(());
    }
    Err("no".into())
}

#[netpoll::test]
async fn returns_an_exit_code() -> ExitCode {
    ExitCode::SUCCESS
}

/// Documentation stays.
#[netpoll::test]
#[should_panic(expected = "on purpose")]
async fn panic_reaches_test_harness() {
    netpoll::task::yield_now().await;
    panic!("on purpose");
}

#[should_panic]
#[netpoll::test]
async fn attributes_above_are_kept() {
    panic!();
}

#[netpoll::test]
#[test]
async fn is_not_a_test_twice() {}

#[netpoll::test(crate = "::netpoll")]
async fn takes_a_path() {}

#[netpoll::test(crate = "renamed::deeply")]
async fn takes_a_path_with_a_comma() {}

mod renamed {
    pub(super) use netpoll as deeply;
}

#[netpoll::test]
#[allow(unused_variables, unused_mut)]
pub(crate) async fn keeps_lint_levels_and_visibility() {
    let mut unused = 1;
}

#[netpoll::test]
async fn r#async() {}

mod helper {
    /// A program's `main`, in a module where it can be called.
    #[netpoll::main]
    pub(super) async fn main() -> u32 {
        let one = netpoll::task::spawn(async { 1 }).await;
        one + 1
    }
}

#[test]
fn main_blocks_and_returns() {
    let result: u32 = helper::main();
    assert_eq!(result, 2);
}

mod with_workers {
    /// tokio's arguments.
    #[netpoll::main(flavor = "multi_thread", worker_threads = 3)]
    pub(super) async fn main() -> usize {
        netpoll::rt::metrics().workers
    }
}

#[test]
fn the_number_of_workers_is_set() {
    common::child("the_number_of_workers_is_set", || assert_eq!(with_workers::main(), 3));
}

#[netpoll::test(flavor = "multi_thread")]
async fn multi_thread_flavor_is_accepted() {}

mod braces {
    #[netpoll::main]
    #[allow(unused_braces)]
    pub(super) async fn main() -> [u8; { 1 + 1 }] {
        [1; { 1 + 1 }]
    }
}

#[test]
fn a_return_type_may_hold_braces() {
    assert_eq!(braces::main(), [1, 1]);
}

mod by_macro {
    macro_rules! program {
        ($(#[$meta:meta])* $visibility:vis, $output:ty, $body:block) => {
            $(#[$meta])*
            #[netpoll::main]
            $visibility async fn main() -> $output $body
        };
    }

    macro_rules! test {
        ($path:literal, $name:ident, $body:block) => {
            #[netpoll::test(crate = $path)]
            async fn $name() $body
        };
    }

    program! {
        /// Made by a macro.
        #[inline]
        pub(super), Option<u8>, { Some(async { 3 }.await) }
    }

    test!("netpoll", made_by_a_macro, {
        assert_eq!(async { 4 }.await, 4);
    });
}

#[test]
fn macro_fragments_are_accepted() {
    assert_eq!(by_macro::main(), Some(3));
}

/// Local names of the expansion do not meet the user's.
#[allow(non_camel_case_types, dead_code)]
mod hygiene {
    mod core {}
    mod std {}
    mod task {}
    fn block_on() {}

    #[netpoll::test]
    async fn own_names() {
        block_on();
    }
}
