//! Tests simulations in a program that defines `clock_gettime` and `getrandom` itself (feature
//! `sim`, built with `--cfg netpoll_no_interpose`). `ci/sim.sh opt-out` runs these tests.
#![cfg(netpoll_no_interpose)]
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem::transmute;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use netpoll::net::{Dialer, TcpListener, TcpStream, is_timeout};
use netpoll::sim::{self, Builder, Sim, ms};
use netpoll::{future, task};

const HOUR: Duration = Duration::from_secs(3600);

/// Whether the program's functions ask the simulation for their results.
static ASKS: AtomicBool = AtomicBool::new(false);
/// Held while a test relies on [`ASKS`].
static ONE: Mutex<()> = Mutex::new(());
/// The number of calls of the program's `clock_gettime`.
static CLOCK_CALLS: AtomicU64 = AtomicU64::new(0);
/// The number of calls of the program's `getrandom`.
static RANDOM_CALLS: AtomicU64 = AtomicU64::new(0);

/// Returns the C library's function named `name`.
fn real(name: &CStr) -> *mut c_void {
    // SAFETY: the name is a NUL-terminated string.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    assert!(!found.is_null());
    found
}

/// # Safety
/// Same as for the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut libc::timespec) -> c_int {
    CLOCK_CALLS.fetch_add(1, Ordering::Relaxed);
    if ASKS.load(Ordering::Relaxed)
        && let Some(now) = sim::clock_gettime(clock)
    {
        let now = libc::timespec { tv_sec: now.as_secs() as i64, tv_nsec: i64::from(now.subsec_nanos()) };
        // SAFETY: the caller passes a place for the time.
        unsafe { time.write(now) };
        return 0;
    }
    type Real = unsafe extern "C" fn(c_int, *mut libc::timespec) -> c_int;
    // SAFETY: the C library's function has this type.
    let real = unsafe { transmute::<*mut c_void, Real>(real(c"clock_gettime")) };
    // SAFETY: the caller keeps the function's contract.
    unsafe { real(clock, time) }
}

/// # Safety
/// Same as for the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buf: *mut c_void, count: usize, flags: u32) -> isize {
    RANDOM_CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller passes a buffer of `count` bytes. std, which draws the keys of `HashMap`,
    // has initialised them.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buf.cast::<u8>(), count) };
    if ASKS.load(Ordering::Relaxed) && sim::getrandom(bytes) {
        return count as isize;
    }
    type Real = unsafe extern "C" fn(*mut c_void, usize, u32) -> isize;
    // SAFETY: the C library's function has this type.
    let real = unsafe { transmute::<*mut c_void, Real>(real(c"getrandom")) };
    // SAFETY: the caller keeps the function's contract.
    unsafe { real(buf, count, flags) }
}

/// Echoes the data of each client, and drops clients that are silent for 30 seconds.
async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:7").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        task::spawn(async move { netpoll::io::copy(&mut &stream, &mut &stream).await });
    }
}

/// Takes several steps, and returns the virtual time at the end of each.
async fn steps(sim: Sim) -> Vec<Duration> {
    sim.host("server").spawn(serve);
    sim.link("*", "*").latency(ms(10)).loss(0.05);
    let mut times = Vec::new();
    task::sleep(HOUR).await;
    times.push(sim.elapsed());
    let stream = Dialer::new().timeout(Duration::from_secs(20)).dial("server:7").await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut buf = [0; 8];
    assert_eq!(stream.read(&mut buf).await.unwrap(), 5);
    times.push(sim.elapsed());
    assert_eq!(stream.read(&mut buf).await.unwrap(), 0, "the server drops silent clients");
    times.push(sim.elapsed());
    sim.partition("test", "server");
    let dialled = Dialer::new().timeout(Duration::from_secs(20)).dial("server:7").await;
    assert!(is_timeout(&dialled.unwrap_err()));
    times.push(sim.elapsed());
    assert!(future::timeout(HOUR, std::future::pending::<()>()).await.is_err());
    times.push(sim.elapsed());
    times
}

fn assert_times(times: &[Duration]) {
    assert_eq!(times[0], HOUR);
    assert!(times[1] >= HOUR + ms(40) && times[1] < HOUR + ms(20_000), "{times:?}");
    assert!(times[2] - times[1] >= ms(30_000) && times[2] - times[1] < ms(60_000), "{times:?}");
    assert_eq!(times[3] - times[2], ms(20_000));
    assert_eq!(times[4] - times[3], HOUR);
}

#[test]
fn timers_are_virtual_and_clock_of_std_is_real() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    ASKS.store(false, Ordering::Relaxed);
    let before = CLOCK_CALLS.load(Ordering::Relaxed);
    let run = || {
        Builder::new().seed(3).run(async |sim| {
            let (begin, wall) = (Instant::now(), SystemTime::now());
            let times = steps(sim).await;
            (times, begin.elapsed(), wall.elapsed().unwrap_or_default())
        })
    };
    let (first, second) = (run(), run());
    assert_times(&first.output.0);
    assert_eq!((first.output.0, first.digest), (second.output.0, second.digest));
    assert!(first.output.1 < HOUR && first.output.2 < HOUR, "std's clock is real");
    assert!(CLOCK_CALLS.load(Ordering::Relaxed) > before, "the program's own function is called");
}

#[test]
fn functions_that_ask_the_simulation_make_clock_and_random_numbers_virtual() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    ASKS.store(true, Ordering::Relaxed);
    let before = RANDOM_CALLS.load(Ordering::Relaxed);
    let run = |seed| {
        Sim::run(seed, async |sim| {
            let (begin, wall) = (Instant::now(), SystemTime::now());
            let times = steps(sim).await;
            assert_times(&times);
            assert_eq!(begin.elapsed(), *times.last().unwrap());
            assert_eq!(wall.elapsed().unwrap(), *times.last().unwrap());
            let stream = TcpStream::connect("server:7").await;
            assert!(stream.is_err(), "the hosts are still separated");
            // A deadline given as an `Instant` refers to std's clock.
            let (before, until) = (sim.elapsed(), Instant::now() + HOUR);
            netpoll::time::Sleep::until(until).await;
            assert_eq!(sim.elapsed() - before, HOUR);
            let map: HashMap<u32, ()> = (0..1000).map(|number| (number, ())).collect();
            let order: Vec<_> = map.into_keys().collect();
            (sim.digest(), order)
        })
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5).1, run(6).1, "another seed, another order");
    assert!(RANDOM_CALLS.load(Ordering::Relaxed) > before, "the program's own function is called");
    ASKS.store(false, Ordering::Relaxed);
}
