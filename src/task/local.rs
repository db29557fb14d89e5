//! Task-local values: [`task_local!`](crate::task_local) and [`LocalKey`].

use std::any::Any;
use std::error::Error;
use std::fmt;

use crate::rt::context;
use crate::rt::sched::task_data::LocalState;

/// Declares task-local values, each as a static [`LocalKey`](crate::task::LocalKey).
///
/// Every task, including the future of a [`block_on`](crate::task::block_on), has its own value.
/// The initialiser creates the value on first use, and the value is dropped when the task ends.
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

/// A key for a task-local value, declared by [`task_local!`](crate::task_local).
///
/// # Examples
/// ```
/// use netpoll::task;
/// use std::cell::Cell;
///
/// task::task_local! {
///     static REQUESTS: Cell<u32> = Cell::new(0);
/// }
///
/// let count = task::block_on(async {
///     REQUESTS.with(|requests| requests.set(requests.get() + 1));
///     REQUESTS.with(|requests| requests.get())
/// });
/// assert_eq!(count, 1);
/// ```
pub struct LocalKey<T: Send + 'static> {
    /// This field also gives the key a size. A key is identified by its address, and keys without a
    /// size could share one.
    init: fn() -> T,
}

impl<T: Send + 'static> LocalKey<T> {
    #[doc(hidden)]
    pub const fn __new(init: fn() -> T) -> LocalKey<T> {
        LocalKey { init }
    }

    /// Calls `f` with a reference to the current task's value, which the initialiser creates on
    /// first use.
    ///
    /// # Panics
    /// Panics outside any task and [`block_on`](crate::task::block_on), and if the task is ending
    /// and has already dropped the value; see [`try_with`](LocalKey::try_with).
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
    /// Returns an error if there is no value.
    ///
    /// When a task ends, it drops its values in reverse order of creation. The destructor of a
    /// value may use other keys. Its own key, and keys whose values have already been dropped, are
    /// no longer accessible, as with [`std::thread::LocalKey`].
    ///
    /// # Errors
    /// Returns [`AccessError`] outside any task and [`block_on`](crate::task::block_on), and if the
    /// task is ending and has already dropped the value.
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
                        // The initialiser may have used this key. The first value is kept.
                        if matches!(data.local(key), LocalState::Absent) {
                            data.set_local(key, value);
                        }
                    }
                }
            };
            // SAFETY: the value is boxed. A task drops its values after its last poll, one at a
            // time, and not during a call of `f`. Only the thread that runs the task accesses the
            // value, and creates only shared references to it.
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

/// The error of [`LocalKey::try_with`]: no task is running on this thread, or the task is ending
/// and has already dropped the value.
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
            "the task is ending and has dropped the value: access it before the task ends"
        } else {
            "no task is running on this thread: access the value in a task or in `block_on`"
        })
    }
}

impl Error for AccessError {}
