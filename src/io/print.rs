//! `print!` and related macros, whose results are awaited.

use super::{WriteExt, stderr, stdout};

/// Prints to standard output; the asynchronous [`std::print!`].
///
/// Text after the last line end is buffered: flush [`stdout`](crate::io::stdout()) to see it.
///
/// # Panics
/// Panics if writing fails.
///
/// # Examples
/// ```
/// use netpoll::{io, prelude::*, print};
///
/// # netpoll::task::block_on(async {
/// print!("{} of {}", 1, 2).await;
/// io::stdout().flush().await?;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::io::_print($crate::__private::format!($($arg)*)) };
}

/// Prints a line to standard output; the asynchronous [`std::println!`].
///
/// # Panics
/// Panics if writing fails.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// netpoll::println!("{} of {}", 1, 2).await;
/// netpoll::println!().await;
/// # });
/// ```
#[macro_export]
macro_rules! println {
    () => { $crate::io::_print($crate::__private::String::from("\n")) };
    ($($arg:tt)*) => { $crate::io::_print($crate::__private::format!($($arg)*) + "\n") };
}

/// Prints to standard error; the asynchronous [`std::eprint!`].
///
/// # Panics
/// Panics if writing fails.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// netpoll::eprint!("{} of {}", 1, 2).await;
/// # });
/// ```
#[macro_export]
macro_rules! eprint {
    ($($arg:tt)*) => { $crate::io::_eprint($crate::__private::format!($($arg)*)) };
}

/// Prints a line to standard error; the asynchronous [`std::eprintln!`].
///
/// # Panics
/// Panics if writing fails.
///
/// # Examples
/// ```
/// # netpoll::task::block_on(async {
/// netpoll::eprintln!("{} of {}", 1, 2).await;
/// # });
/// ```
#[macro_export]
macro_rules! eprintln {
    () => { $crate::io::_eprint($crate::__private::String::from("\n")) };
    ($($arg:tt)*) => { $crate::io::_eprint($crate::__private::format!($($arg)*) + "\n") };
}

/// Implements [`print!`](crate::print).
#[doc(hidden)]
pub async fn _print(text: String) {
    if let Err(error) = stdout().write_all(text.as_bytes()).await {
        panic!("failed printing to stdout: {error}");
    }
}

/// Implements [`eprint!`](crate::eprint).
#[doc(hidden)]
pub async fn _eprint(text: String) {
    if let Err(error) = stderr().write_all(text.as_bytes()).await {
        panic!("failed printing to stderr: {error}");
    }
}
