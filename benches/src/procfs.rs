//! Reads the memory and the context switches of a process from /proc. This does not interrupt the
//! process.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// The memory, the context switches and the threads of a process at one time.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The resident anonymous memory, in bytes.
    pub rss_anon_bytes: u64,
    /// The number of voluntary and involuntary context switches of each living thread, by thread
    /// id.
    pub context_switches: BTreeMap<String, u64>,
    /// The number of living threads.
    pub threads: u64,
}

/// Takes a snapshot of process `pid`.
///
/// # Errors
/// Returns an error if there is no such process, for example because it has ended and its parent
/// has waited for it.
pub fn snapshot(pid: u32) -> io::Result<Snapshot> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut snapshot = Snapshot { rss_anon_bytes: field(&status, "RssAnon:") * 1024, ..Snapshot::default() };
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?;
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
        snapshot.threads += 1;
        snapshot.context_switches.insert(
            thread.file_name().to_string_lossy().into_owned(),
            field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:"),
        );
    }
    Ok(snapshot)
}

impl Snapshot {
    /// Returns the number of context switches since `before`. A thread of `before` that has ended
    /// counts as one switch. A thread that began and ended in between is not counted.
    #[must_use]
    pub fn switches_since(&self, before: &Snapshot) -> u64 {
        let ended =
            before.context_switches.keys().filter(|thread| !self.context_switches.contains_key(*thread)).count();
        let of_living = self
            .context_switches
            .iter()
            .map(|(thread, switches)| switches - before.context_switches.get(thread).unwrap_or(&0).min(switches));
        of_living.sum::<u64>() + ended as u64
    }
}

/// Returns the number after `name` in the text of a status file, or 0 if there is none.
fn field(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn context_switches_are_counted_per_thread() {
        let snapshot = |switches: &[(&str, u64)]| super::Snapshot {
            context_switches: switches.iter().map(|(thread, count)| ((*thread).to_owned(), *count)).collect(),
            ..super::Snapshot::default()
        };
        let before = snapshot(&[("1", 5), ("2", 90)]);
        assert_eq!(snapshot(&[("1", 5), ("2", 90)]).switches_since(&before), 0);
        assert_eq!(snapshot(&[("1", 7), ("3", 4)]).switches_since(&before), 2 + 4 + 1);
    }

    #[test]
    fn process_reads_its_own_figures() {
        let snapshot = super::snapshot(std::process::id()).unwrap();
        assert!(snapshot.threads >= 1);
        assert!(snapshot.rss_anon_bytes > 0);
    }

    #[test]
    fn fields_are_found_by_whole_name() {
        let status = "RssAnon:\t  12 kB\nvoluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t5\n";
        assert_eq!(super::field(status, "RssAnon:"), 12);
        assert_eq!(super::field(status, "voluntary_ctxt_switches:"), 3);
        assert_eq!(super::field(status, "absent:"), 0);
    }
}
