//! Values that belong to a task.

use std::any::Any;
use std::error::Error;
use std::fmt;

use crate::rt::context;
use crate::rt::sched::task::LocalState;

/// Declares task-local values, each a static [`LocalKey`](crate::task::LocalKey).
///
/// Every task has its own, made by the initialiser at its first use and dropped when the task ends.
///
/// # Examples
/// ```
/// use netpoll::{task, task_local};
/// use std::cell::Cell;
///
/// task_local! {
///     static REQUESTS: Cell<u32> = Cell::new(0);
/// }
///
/// task::block_on(async {
///     REQUESTS.with(|requests| requests.set(requests.get() + 1));
///     assert_eq!(REQUESTS.with(Cell::get), 1);
///     assert_eq!(task::spawn(async { REQUESTS.with(Cell::get) }).await, 0);
/// });
/// ```
#[macro_export]
macro_rules! task_local {
    () => {};
    ($(#[$attr:meta])* $vis:vis static $name:ident: $type:ty = $init:expr) => {
        $(#[$attr])*
        $vis static $name: $crate::task::LocalKey<$type> = {
            #[inline]
            fn init() -> $type {
                $init
            }
            $crate::task::LocalKey::__new(init)
        };
    };
    ($(#[$attr:meta])* $vis:vis static $name:ident: $type:ty = $init:expr; $($rest:tt)*) => {
        $crate::task_local!($(#[$attr])* $vis static $name: $type = $init);
        $crate::task_local!($($rest)*);
    };
}

/// A key for a task-local value; declared by [`task_local!`](crate::task_local).
pub struct LocalKey<T: Send + 'static> {
    init: fn() -> T,
    /// Gives the key, which its address identifies, a size.
    _place: u8,
}

impl<T: Send + 'static> LocalKey<T> {
    #[doc(hidden)]
    pub const fn __new(init: fn() -> T) -> LocalKey<T> {
        LocalKey { init, _place: 0 }
    }

    /// Calls `f` with a reference to the current task's value, which is created by the initialiser if the task has none yet.
    ///
    /// # Panics
    /// When called outside any task, and when the task has dropped the value because it is ending; see [`try_with`](LocalKey::try_with).
    #[track_caller]
    pub fn with<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        match self.try_with(f) {
            Ok(result) => result,
            Err(error) => panic!("cannot access a task-local value: {error}"),
        }
    }

    /// Calls `f` with a reference to the current task's value, as [`with`](LocalKey::with) does.
    ///
    /// A task that ends drops its values, the latest first. A destructor may use other keys. Its own key, and those whose values were
    /// dropped before it, are no longer accessible, as with [`std::thread::LocalKey`].
    ///
    /// # Errors
    /// [`AccessError`] when called outside any task, and when the task has dropped the value because it is ending.
    ///
    /// # Examples
    /// ```
    /// use netpoll::{task, task_local};
    ///
    /// task_local! {
    ///     static NUMBER: u32 = 7;
    /// }
    ///
    /// assert!(NUMBER.try_with(|_| ()).is_err());
    /// assert_eq!(task::block_on(async { NUMBER.try_with(|number| *number) }), Ok(7));
    /// ```
    pub fn try_with<F, R>(&'static self, f: F) -> Result<R, AccessError>
    where
        F: FnOnce(&T) -> R,
    {
        let key = std::ptr::from_ref(self).addr();
        context::with_task(|data| {
            let data = data.ok_or(AccessError { ended: false })?;
            let value = loop {
                match data.local(key) {
                    LocalState::Value(value) => break value,
                    LocalState::Dropped => return Err(AccessError { ended: true }),
                    LocalState::Absent => {
                        let value: Box<dyn Any + Send> = Box::new((self.init)());
                        // The initialiser may have used this very key: the first value stays.
                        if matches!(data.local(key), LocalState::Absent) {
                            data.set_local(key, value);
                        }
                    }
                }
            };
            // SAFETY: the value is boxed and dropped with its task's future, which is not before this poll returns; only the thread
            // that polls the task comes here, and hands out shared references only.
            #[allow(unsafe_code)]
            let value = unsafe { &*value };
            let value = value.downcast_ref::<T>().expect("a key's address identifies its type");
            Ok(f(value))
        })
    }
}

impl<T: Send + 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

/// An error returned by [`LocalKey::try_with`]: no task is running on this thread, or the task is ending and has dropped the value.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct AccessError {
    ended: bool,
}

impl fmt::Debug for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessError").finish()
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.ended {
            "the task is ending and has dropped the value"
        } else {
            "no task is running on this thread"
        })
    }
}

impl Error for AccessError {}
