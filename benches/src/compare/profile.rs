//! Attributes the instructions of an echo to source files and to functions, by callgrind's self
//! cost.
//!
//! The optimiser merges the layers of a request into a few functions, so a table by function shows
//! little about layers. The table by file uses the debug information, which names the source file
//! of every instruction, even if the instruction was inlined into a function of another file. All
//! files of another package count as one.
//!
//! Each figure is the difference in instructions of two runs of different length, divided by the
//! difference in requests, so that start-up and exit do not count.

use std::collections::HashMap;

/// Self costs by function or by file.
type Costs = HashMap<String, u64>;

/// The self costs of one run by function and by file, and the number of calls of each function.
#[derive(Debug, Default, PartialEq)]
pub struct Run {
    functions: Costs,
    files: Costs,
    calls: Costs,
}

impl Run {
    /// Reads callgrind's output, format version 1 with compressed names.
    #[must_use]
    pub fn parse(text: &str) -> Run {
        let mut run = Run::default();
        let (mut file_names, mut function_names) = (HashMap::new(), HashMap::new());
        let (mut file, mut function, mut callee) = (String::new(), String::new(), String::new());
        let mut is_call = false;
        for line in text.lines() {
            if let Some((key, value)) = line.split_once('=') {
                match key {
                    "fl" | "fi" | "fe" => file = resolve(&mut file_names, value),
                    "cfi" | "cfl" => drop(resolve(&mut file_names, value)),
                    "fn" => function = resolve(&mut function_names, value),
                    "cfn" => callee = resolve(&mut function_names, value),
                    "calls" => {
                        is_call = true;
                        let count: u64 = value.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
                        *run.calls.entry(callee.clone()).or_default() += count;
                    }
                    _ => {}
                }
                continue;
            }
            if !line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
                continue;
            }
            // The line after `calls=` has the inclusive cost of the call, which the lines of the
            // called functions contain as well.
            if std::mem::take(&mut is_call) {
                continue;
            }
            let cost: u64 = line.split_whitespace().nth(1).and_then(|cost| cost.parse().ok()).unwrap_or(0);
            *run.functions.entry(function.clone()).or_default() += cost;
            *run.files.entry(place(&file, &function)).or_default() += cost;
        }
        run
    }
}

/// Resolves a compressed name: `(3) name` defines number 3, and `(3)` refers to it.
fn resolve(names: &mut HashMap<String, String>, value: &str) -> String {
    match value.split_once(") ") {
        Some((number, name)) => {
            names.insert(number.to_owned(), name.to_owned());
            name.to_owned()
        }
        None => names.get(value.trim_end_matches(')')).cloned().unwrap_or_else(|| value.to_owned()),
    }
}

/// The files and directories of netpoll that have code.
const OWN: [&str; 15] = [
    "src/future/",
    "src/io/",
    "src/net/",
    "src/os/",
    "src/rt/",
    "src/signal.rs",
    "src/sim/",
    "src/stream/",
    "src/sync.rs",
    "src/sys/",
    "src/task/",
    "src/time.rs",
    "src/time/",
    "src/tokio_io.rs",
    "src/trace/",
];

/// Returns the name under which a file is listed: the path for a file of netpoll, the name of the
/// package for a file of a dependency, and a description for the standard library, the server's
/// code and libc. Any other file keeps its path.
fn place(file: &str, function: &str) -> String {
    if let Some((_, rest)) = file.split_once("/registry/src/") {
        let package = rest.split('/').nth(1).unwrap_or(rest);
        return package.rsplit_once('-').map_or(package, |(name, _)| name).to_owned();
    }
    if file.contains("/library/") {
        return "std, core, alloc".to_owned();
    }
    for own in OWN {
        if let Some(at) = file.find(own) {
            return file[at..].to_owned();
        }
    }
    if file.contains("src/servers/") || file.contains("src/bin/") {
        return "the server's own code".to_owned();
    }
    let from_libc = ["recv", "send", "epoll", "mem", "malloc", "free", "clock", "pthread", "syscall"];
    if from_libc.iter().any(|name| function.contains(name)) || file == "???" {
        return "libc".to_owned();
    }
    file.to_owned()
}

/// Returns the cost of `key` in the long run minus that in the short run.
fn difference(long: &Costs, short: &Costs, key: &str) -> f64 {
    let cost = |costs: &Costs| costs.get(key).map_or(0.0, |cost| *cost as f64);
    cost(long) - cost(short)
}

/// Returns the instructions per request in the functions that serve a request. These are the
/// functions that are called at least once per request, and the loops over requests, which are
/// recognised by their cost. Other functions belong to polls of the poller and to other threads,
/// such as sysmon. Their number of instructions per request depends on the speed of the machine.
/// The arguments are a short and a long run, each with its number of requests.
#[must_use]
pub fn of_requests((less, few): (&Run, u64), (more, many): (&Run, u64)) -> f64 {
    /// The minimum number of calls per request of a function that counts as called once per
    /// request.
    const CALLS: f64 = 0.9;
    /// The minimum number of instructions per request of a loop over requests. No function that
    /// does not serve requests has as many.
    const LOOP: f64 = 50.0;
    let requests = (many - few).max(1) as f64;
    let each = |long: &Costs, short: &Costs, key: &String| difference(long, short, key) / requests;
    let serves = |name: &&String, cost: f64| cost >= LOOP || each(&more.calls, &less.calls, name) >= CALLS;
    let costs = more.functions.keys().map(|name| (name, each(&more.functions, &less.functions, name)));
    costs.filter(|(name, cost)| serves(name, *cost)).map(|(_, cost)| cost).sum()
}

/// Returns two Markdown tables with the instructions per echo, by file and by function, and a line
/// with the result of [`of_requests`]. The arguments are a short and a long run, each with its
/// number of requests.
#[must_use]
pub fn markdown((less, few): (&Run, u64), (more, many): (&Run, u64)) -> String {
    let requests = (many - few).max(1) as f64;
    let mut text = String::new();
    for (what, long, short) in
        [("source file", &more.files, &less.files), ("function", &more.functions, &less.functions)]
    {
        let each = |key: &String| (key.clone(), difference(long, short, key) / requests);
        let mut costs: Vec<(String, f64)> = long.keys().map(each).collect();
        costs.sort_by(|a, b| b.1.total_cmp(&a.1));
        let whole: f64 = costs.iter().map(|cost| cost.1).sum();
        text.push_str(&format!("| {what} | instructions per echo |\n|---|---:|\n"));
        let (mut told, mut rest) = (0.0, 0);
        for (name, cost) in &costs {
            if *cost >= whole / 100.0 && rest == 0 {
                text.push_str(&format!("| {} | {cost:.1} |\n", shortened(name)));
                told += cost;
            } else if *cost > 0.0 {
                rest += 1;
            }
        }
        text.push_str(&format!("| {rest} others | {:.1} |\n| all | {whole:.1} |\n\n", whole - told));
    }
    let served = of_requests((less, few), (more, many));
    text.push_str(&format!("in the functions that serve a request: {served:.1}\n"));
    text
}

/// Returns the name of a function or a file for a table cell, without generic arguments and with at
/// most 110 characters.
fn shortened(name: &str) -> String {
    let (mut depth, mut text) = (0_usize, String::new());
    // In `<Type as Trait>::method`, the text directly inside the first angle brackets is kept.
    let mut kept = usize::from(name.starts_with('<'));
    for letter in name.replace("->", "→").chars() {
        match letter {
            '<' => depth += 1,
            '>' => {
                depth = depth.saturating_sub(1);
                kept = kept.min(depth);
            }
            _ if depth <= kept => text.push(letter),
            _ => {}
        }
    }
    format!("`{}`", text.replace('|', "/").chars().take(110).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::{Run, markdown, of_requests, place, shortened};

    const OUTPUT: &str = "positions: line\nevents: Ir\nfl=(1) /x/src/net/fd/fd.rs\nfn=(1) read\n10 5\nfi=(2) /x/src/rt/poll/poll_desc.rs\n\
                          +3 7\nfe=(1)\ncfn=(2) recv\ncalls=1 0\n12 100\n* 1\nfl=(3) ???\nfn=(2)\n0 100\n";

    #[test]
    fn self_cost_is_counted_by_function_and_by_file_of_inlined_code() {
        let run = Run::parse(OUTPUT);
        assert_eq!(run.functions["read"], 13);
        assert_eq!(run.functions["recv"], 100);
        assert_eq!(run.files["src/net/fd/fd.rs"], 6);
        assert_eq!(run.files["src/rt/poll/poll_desc.rs"], 7);
        assert_eq!(run.files["libc"], 100);
        let text = markdown((&Run::default(), 0), (&run, 10));
        assert!(text.contains("| `src/rt/poll/poll_desc.rs` | 0.7 |\n") && text.contains("| all | 11.3 |"), "{text}");
    }

    #[test]
    fn only_functions_that_serve_requests_are_summed() {
        let cost = |name: &str, instructions: u64, calls: u64| {
            format!("fn={name}\n1 {instructions}\nfn=caller\ncfn={name}\ncalls={calls} 0\n1 {instructions}\n")
        };
        // The difference is ten requests. `read` is called once per request, `turn` is a loop over
        // requests, and `sysmon` is another thread.
        let long = Run::parse(&[cost("read", 300, 12), cost("turn", 700, 2), cost("sysmon", 450, 8)].concat());
        let short = Run::parse(&[cost("read", 50, 2), cost("turn", 100, 1), cost("sysmon", 40, 1)].concat());
        assert_eq!(of_requests((&short, 2), (&long, 12)), 25.0 + 60.0);
    }

    #[test]
    fn files_and_functions_have_short_names() {
        assert_eq!(place("/c/registry/src/index-1/async-task-4.7.1/src/raw.rs", "f"), "async-task");
        for own in [
            "src/sync.rs",
            "src/time.rs",
            "src/time/movable.rs",
            "src/stream/mod.rs",
            "src/trace/on.rs",
            "src/tokio_io.rs",
        ] {
            assert_eq!(place(&format!("/x/netpoll/{own}"), "f"), own);
        }
        assert_eq!(place("/x/benches/src/servers/netpoll.rs", "f"), "the server's own code");
        assert_eq!(place("/rustc/1/library/core/src/task.rs", "f"), "std, core, alloc");
        assert_eq!(shortened("<a::B<c::D> as E<F<G>>>::f"), "`a::B as E::f`");
        assert_eq!(shortened("raw::RawTask<F,T>::run"), "`raw::RawTask::run`");
    }
}
