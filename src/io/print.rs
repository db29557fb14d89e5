//! Asynchronous versions of [`std::print!`] and related macros. Each macro returns a future.

use super::{WriteExt, stderr, stdout};

/// Prints to standard output. This is an asynchronous version of [`std::print!`]: await the
/// returned future.
///
/// Text after the last newline may stay in the buffer until [`stdout`](crate::io::stdout()) is
/// flushed.
///
/// # Panics
/// Panics if writing fails.
///
/// # Cancel safety
/// If the future is dropped, the first part of the text may still be printed, or all of it.
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

/// Prints to standard output, with a newline. This is an asynchronous version of [`std::println!`]:
/// await the returned future.
///
/// # Panics
/// Panics if writing fails.
///
/// # Cancel safety
/// Same as [`print!`](crate::print).
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

/// Prints to standard error. This is an asynchronous version of [`std::eprint!`]: await the
/// returned future.
///
/// # Panics
/// Panics if writing fails.
///
/// # Cancel safety
/// Same as [`print!`](crate::print).
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

/// Prints to standard error, with a newline. This is an asynchronous version of
/// [`std::eprintln!`]: await the returned future.
///
/// # Panics
/// Panics if writing fails.
///
/// # Cancel safety
/// Same as [`print!`](crate::print).
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

/// Writes the text of [`print!`](crate::print) and [`println!`](crate::println).
#[doc(hidden)]
pub async fn _print(text: String) {
    if let Err(error) = stdout().write_all(text.as_bytes()).await {
        panic!("failed printing to stdout: {error}");
    }
}

/// Writes the text of [`eprint!`](crate::eprint) and [`eprintln!`](crate::eprintln).
#[doc(hidden)]
pub async fn _eprint(text: String) {
    if let Err(error) = stderr().write_all(text.as_bytes()).await {
        panic!("failed printing to stderr: {error}");
    }
}
