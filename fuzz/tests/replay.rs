//! Runs each fuzz target with its seeds, mutations of them, and random bytes.

use std::path::Path;

use netpoll_fuzz::{codecs, sockets, state};

/// The number of inputs per target in addition to the seeds, unless `NETPOLL_FUZZ_INPUTS` sets
/// another number.
const INPUTS: u64 = 1000;

/// The maximum number of bytes of a mutated seed.
const LENGTH_MAX: usize = 1024;

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Returns a seed of which some bytes were changed, inserted, repeated or removed, or random bytes.
fn mutated(seeds: &[Vec<u8>], state: &mut u64) -> Vec<u8> {
    let pick = |state: &mut u64, bound: usize| (random(state) >> 20) as usize % bound.max(1);
    let at = pick(state, seeds.len() + 1);
    let Some(mut bytes) = seeds.get(at).cloned() else {
        return (0..pick(state, 300)).map(|_| pick(state, 256) as u8).collect();
    };
    for _ in 0..=pick(state, 8) {
        let (one, other) = (pick(state, bytes.len()), pick(state, bytes.len()));
        match pick(state, 4) {
            0 if !bytes.is_empty() => bytes[one] = pick(state, 256) as u8,
            1 => bytes.insert(one, pick(state, 256) as u8),
            2 => bytes.extend_from_within(one.min(other)..one.max(other)),
            _ => bytes.truncate(bytes.len() - pick(state, 4).min(bytes.len())),
        }
    }
    bytes.truncate(LENGTH_MAX);
    bytes
}

/// Runs the target `name` with its seeds, mutations of them, and random bytes. Prints a failing
/// input.
fn replay(name: &str, target: fn(&[u8])) {
    struct Shown<'a>(&'a [u8]);
    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the input is {:?}", self.0);
            }
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!seeds.is_empty(), "{} is empty", folder.display());
    let inputs = std::env::var("NETPOLL_FUZZ_INPUTS").map_or(INPUTS, |count| count.parse().unwrap());
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let fresh = (0..inputs).map(|_| mutated(&seeds, &mut state));
    for input in seeds.iter().cloned().chain(fresh) {
        let shown = Shown(&input);
        target(shown.0);
    }
}

#[test]
fn control() {
    replay("control", codecs::control);
}

#[test]
fn addresses() {
    replay("addresses", codecs::addresses);
}

#[test]
fn text() {
    replay("text", codecs::text);
}

#[test]
fn timers() {
    replay("timers", state::timers);
}

#[test]
fn poll_cache() {
    replay("poll_cache", state::poll_cache);
}

#[test]
fn sockets() {
    replay("sockets", sockets::operations);
}

/// The model of `sockets`, which predicts the results of the real kernel, also predicts those of
/// the simulated kernel.
#[cfg(feature = "simulations")]
#[test]
fn sockets_in_simulations() {
    replay("sockets", |data| {
        let data = data.to_vec();
        netpoll::sim::Sim::run(data.len() as u64, async move |_| sockets::play(&data).await);
    });
}
