//! Checks rules for the sources and documents that the compiler does not check.

#[path = "tidy/imports.rs"]
mod imports;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the Rust sources in a folder and the folders below, sorted by path, except those in
/// folders named `target`.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found.sort();
    found
}

/// Returns the Rust sources of the crate and of the other packages, but not those in `ci`.
fn all() -> Vec<(PathBuf, String)> {
    [
        "src",
        "macros",
        "models",
        "tests",
        "examples",
        "ecosystem",
        "hangs",
        "benches",
        "fuzz",
        "hyper",
        "nettest",
        "quinn",
        "resolver",
        "stand-ins",
        "top",
    ]
    .into_iter()
    .flat_map(sources)
    .collect()
}

/// Calls `complaint` for each line of the files, and fails if a call returns a complaint.
fn check_lines(files: &[(PathBuf, String)], mut complaint: impl FnMut(&str) -> Option<String>) {
    let mut complaints = Vec::new();
    for (path, text) in files {
        for (line, number) in text.lines().zip(1..) {
            complaints.extend(complaint(line).map(|what| format!("{}:{number}: {what}", path.display())));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Returns the code of a line, without its comment. A `//` in a string counts as the start of a
/// comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Returns whether `text` contains `word` as a whole word.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        !text[..at].chars().next_back().is_some_and(is_part)
            && !text[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

#[test]
fn sources_are_found() {
    let files = sources("src");
    assert!(files.len() > 40, "{}", files.len());
    assert!(files.iter().all(|(_, text)| !text.is_empty()));
}

/// Returns the imports between the files of `src`, except those for which `is_left_out` returns
/// true.
fn imports(is_left_out: impl Fn(&str) -> bool) -> imports::Graph {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources("src").into_iter().map(|(path, text)| {
        let path = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        (path, text)
    });
    let mut graph = imports::graph(&files.collect::<Vec<_>>());
    graph.retain(|file, _| !is_left_out(file));
    graph.values_mut().for_each(|used| used.retain(|file| !is_left_out(file)));
    graph
}

#[test]
fn imports_are_followed_to_the_file_that_defines_the_name() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let graph = imports::graph(&[
        file("lib.rs", "pub mod a; mod b; pub use a::inner::Renamed as Outer;"),
        file("a/mod.rs", "mod inner; pub use inner::{Thing, Other as Renamed};"),
        file(
            "a/inner.rs",
            "pub struct Thing; pub struct Other; use super::super::b; fn f() { b::call('\"', \"crate::a\") }",
        ),
        file(
            "b.rs",
            "use crate::{Outer, a::Thing}; pub fn call() {} #[cfg(test)] mod tests { use crate::c::Unseen; } // crate::c",
        ),
        file("c.rs", "fn g<'a>() { crate::b::call() } pub struct Unseen;"),
    ]);
    let used = |name: &str| graph[name].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(used("a/inner.rs"), ["b.rs"]);
    assert_eq!(used("a/mod.rs"), [""; 0]);
    assert_eq!(used("b.rs"), ["a/inner.rs"]);
    assert_eq!(used("c.rs"), ["b.rs"]);
    assert_eq!(imports::cycles(&graph), [["a/inner.rs", "b.rs"]]);
}

/// The check leaves out the simulator, for two reasons. The modules of the clock, of the poller and
/// of the network call the simulator, which replaces them. The files of the simulated kernel
/// implement methods of one type and import each other.
#[test]
fn imports_have_no_cycles() {
    let graph = imports(|file| file.starts_with("sim/"));
    let mut complaint = String::new();
    for cycle in imports::cycles(&graph) {
        complaint += "a cycle:\n";
        for file in &cycle {
            let used: Vec<_> = graph[file].iter().filter(|used| cycle.contains(used)).collect();
            complaint += &format!("  {file} imports {used:?}\n");
        }
    }
    assert!(complaint.is_empty(), "\n{complaint}");
}

/// The layers of `src`, from the lowest up, as path prefixes. The longest matching prefix counts.
const LAYERS: [&[&str]; 7] = [
    &["counting_waker.rs", "own_process.rs", "sync.rs", "sys/", "sim/machine/", "trace/"],
    &["rt/"],
    &["task/", "time", "future/"],
    &["net/fd/"],
    &["net/"],
    &["io/", "stream/", "signal.rs", "tokio_io.rs"],
    &["os/", "prelude.rs", "lib.rs"],
];

/// A file imports only from its own layer and from the layers below. Of the simulator, only
/// `sim/machine` is in a layer. The other files of the simulator import from all layers, and lower
/// layers call them.
#[test]
fn imports_come_from_the_same_layer_or_below() {
    let layer = |file: &str| {
        let prefixes = LAYERS
            .iter()
            .zip(0..)
            .flat_map(|(prefixes, layer)| prefixes.iter().map(move |prefix| (prefix.len(), *prefix, layer)));
        let found = prefixes.filter(|(_, prefix, _)| file.starts_with(prefix)).max();
        found.unwrap_or_else(|| panic!("{file} is in no layer")).2
    };
    let mut complaints = Vec::new();
    for (file, used) in imports(|file| file.starts_with("sim/") && !file.starts_with("sim/machine/")) {
        complaints.extend(
            used.into_iter().filter(|used| layer(used) > layer(&file)).map(|used| format!("{file} imports {used}")),
        );
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Lines of code, also in examples, are within rustfmt's width of 120 characters. Comments have at
/// most 100.
#[test]
fn lines_are_short() {
    let mut in_fence = false;
    check_lines(&all(), |line| {
        let (width, trimmed) = (line.chars().count(), line.trim_start());
        let comment = trimmed.strip_prefix("//");
        let text = comment.map(|text| text.trim_start_matches(['/', '!']).trim_start());
        if text.is_some_and(|text| text.starts_with("```")) {
            in_fence = !in_fence;
        }
        in_fence &= comment.is_some() || trimmed.starts_with("#[doc");
        let most = if comment.is_some() && !in_fence { 100 } else { 120 };
        // Strings, links and rows of tables cannot be broken.
        let is_unbreakable = if comment.is_some() && !in_fence {
            line.contains("http") || line.contains(" | ")
        } else {
            line.contains('"')
        };
        (width > most && !is_unbreakable).then(|| format!("{width} characters"))
    });
}

/// Each file also ends with exactly one newline.
#[test]
fn there_are_no_tabs_or_trailing_blanks() {
    check_lines(&all(), |line| {
        (line.contains('\t') || line.ends_with(' ')).then(|| "a tab, or a space at the end".to_owned())
    });
    for (path, text) in all() {
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{}: its last line", path.display());
    }
}

/// Files that may exceed the size limit, because they are tables. A table is a sequence of entries,
/// each with its documentation.
const TABLES: [&str; 1] = [
    // The methods of one trait, each with its documentation and example.
    "stream/ext.rs",
];

/// A file of `src` has at most 600 lines. If the file would be longer with its unit tests, the
/// tests are in a separate file.
#[test]
fn files_are_within_size_limit() {
    let long: Vec<_> = sources("src")
        .into_iter()
        .filter(|(path, _)| !TABLES.iter().any(|table| path.ends_with(table)))
        .map(|(path, text)| (text.lines().count(), path))
        .filter(|&(lines, _)| lines > 600)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn every_file_has_a_header() {
    let folders = [
        "benches/src",
        "macros",
        "models",
        "src",
        "tests",
        "examples",
        "ecosystem",
        "fuzz/src",
        "hangs",
        "hyper",
        "nettest",
        "quinn",
        "resolver",
        "stand-ins",
        "top",
    ];
    for (path, text) in folders.into_iter().flat_map(sources) {
        assert!(text.starts_with("//! "), "{} has no header", path.display());
    }
}

/// Sources have no marks of unfinished code, and no tests that are ignored.
#[test]
fn there_are_no_placeholders() {
    // The words are split, so that this file passes.
    let banned = [
        concat!("to", "do!"),
        concat!("unimpl", "emented!"),
        concat!("db", "g!"),
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X"),
        concat!("HA", "CK"),
    ];
    let skipped = concat!("#[ig", "nore");
    check_lines(&all(), |line| {
        let word = banned.iter().copied().find(|word| line.contains(word));
        let word = word.or_else(|| line.trim_start().starts_with(skipped).then_some(skipped));
        word.map(|word| format!("{word} is banned"))
    });
}

/// Sources and documents have none of these phrases, which are hard to understand.
#[test]
fn texts_are_plain() {
    // The phrases are split, so that this file passes.
    let banned = [
        concat!("what no", "body"),
        concat!("who is pol", "led"),
        concat!("of another ", "make"),
        concat!("for want ", "of"),
        concat!("It is so ", "that"),
        concat!("system call's; ", "closed"),
    ];
    let find = |line: &str| {
        let phrase = banned.iter().find(|phrase| line.contains(**phrase));
        phrase.map(|phrase| format!("\"{phrase}\": see CONTRIBUTING.md, \"Style\""))
    };
    check_lines(&all(), find);
    let documents = repository().into_iter().filter(|file| file.ends_with(".md"));
    let documents: Vec<_> = documents.map(|file| (PathBuf::from(&file), document(&file))).collect();
    check_lines(&documents, find);
}

/// The library writes to standard output only if the program asks for it, so its code does not use
/// `print!` or `println!`.
#[test]
fn the_library_does_not_print() {
    check_lines(&sources("src"), |line| {
        let code = line.trim_start();
        (!code.starts_with("//") && (has_word(code, "println!") || has_word(code, "print!")))
            .then(|| "prints".to_owned())
    });
}

#[test]
fn unsafe_code_has_safety_comments() {
    let mut complaints = Vec::new();
    for (path, text) in all() {
        let lines: Vec<_> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = code(line);
            let is_unsafe = has_word(code, "unsafe") && (code.contains("unsafe {") || code.contains("unsafe impl"));
            // The word in a string is not code.
            if !is_unsafe || code.contains('"') {
                continue;
            }
            let near = &lines[at.saturating_sub(6)..=at];
            if !near.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
                complaints.push(format!("{}:{}: {}", path.display(), at + 1, line.trim()));
            }
        }
    }
    assert!(complaints.is_empty(), "without SAFETY comment:\n{}", complaints.join("\n"));
}

/// Only `sys` uses `SockRef`, so that a simulation or another system replaces one module only.
#[test]
fn socket_options_are_in_one_module() {
    let files: Vec<_> =
        sources("src").into_iter().filter(|(path, _)| !path.to_string_lossy().contains("/sys/")).collect();
    check_lines(&files, |line| {
        (code(line).contains("SockRef") && !line.trim_start().starts_with("//")).then(|| "names SockRef".to_owned())
    });
}

/// Code for one operating system is in a separate module, so at most one file in ten names a
/// system.
#[test]
fn few_files_name_a_system() {
    let files = sources("src");
    let naming = |text: &str| text.lines().any(|line| code(line).contains("target_os"));
    let count = files.iter().filter(|(_, text)| naming(text)).count();
    assert!(count * 10 <= files.len(), "{count} of {} files name a system", files.len());
}

/// Raw system calls would bypass the functions of sanitizers and preloaded libraries.
/// `src/sys/calls/` makes raw calls only if no such function replaces glibc's.
/// `src/sys/membarrier.rs` calls membarrier(2), for which libc has no function.
#[test]
fn system_calls_use_libc_functions() {
    let calls = [concat!("libc::sys", "call"), concat!("\"sys", "call\",")];
    let mut files = all();
    let raw = ["src/sys/calls/direct.rs", "src/sys/calls/kernel.rs", "src/sys/membarrier.rs"];
    files.retain(|(path, _)| !raw.iter().any(|raw| path.ends_with(raw)));
    let is_raw = |line: &str| calls.iter().any(|call| code(line).contains(call));
    check_lines(&files, |line| is_raw(line).then(|| "a raw system call".to_owned()));
}

/// Returns the numbers of invariants in a line such as `/// Invariant 9. Text` or
/// `/// Invariants 5 and 6: text`, and none for other lines. Numbers in the text do not count.
fn invariants(line: &str) -> Vec<u32> {
    let line = line.trim_start();
    let Some(rest) = line.strip_prefix("/// Invariant") else { return Vec::new() };
    let numbers = rest.split(['.', ':']).next().unwrap_or_default();
    numbers.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[test]
fn invariants_of_a_comment_are_recognised() {
    assert_eq!(invariants("    /// Invariants 5 and 6: at most 8 messages."), [5, 6]);
    assert_eq!(invariants("/// Invariant 2. At most 13 of them."), [2]);
    assert_eq!(invariants("/// See invariant 2."), [0; 0]);
}

/// Each invariant of ARCHITECTURE.md has a test with a comment line that begins with `Invariant N`.
#[test]
fn every_invariant_has_a_test() {
    let mut found = BTreeSet::new();
    for (_, text) in ["tests", "src"].into_iter().flat_map(sources) {
        let lines: Vec<_> = text.lines().map(str::trim_start).collect();
        for (at, line) in lines.iter().enumerate() {
            let item = lines[at..].iter().skip_while(|line| line.starts_with("///"));
            if item.take_while(|line| line.starts_with("#[")).any(|line| *line == "#[test]") {
                found.extend(invariants(line));
            }
        }
    }
    let architecture = document("ARCHITECTURE.md");
    let section = architecture.split("\n## Invariants\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let numbers = section.lines().filter_map(|line| line.split_once(". **")?.0.parse::<u32>().ok());
    let listed: Vec<_> = numbers.collect();
    assert!(!listed.is_empty() && listed.iter().copied().eq(1..=listed.len() as u32), "{listed:?}");
    let missing: Vec<_> = listed.iter().filter(|number| !found.contains(number)).collect();
    assert!(missing.is_empty(), "invariants without a test: {missing:?}");
}

/// The tests named in three files of `ci` exist. (A script that runs or skips a test by a wrong
/// name does not fail.)
#[test]
fn tests_named_in_scripts_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("ci");
    if !root.exists() {
        return println!("skipped: the package does not have every file");
    }
    let texts: Vec<_> = all().into_iter().map(|(_, text)| text).collect();
    let known: BTreeSet<_> = texts
        .iter()
        .flat_map(|text| text.split("fn ").skip(1))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
        .collect();
    for script in ["sim-own.txt", "backends.sh", "memcheck.sh"] {
        let text = fs::read_to_string(root.join(script)).unwrap();
        let words = text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| {
            line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| word.matches('_').count() >= 2)
        });
        // The names of tests are in lower case; those of variables are not.
        let tests: Vec<_> = words.filter(|word| !word.contains(char::is_uppercase)).collect();
        assert!(tests.len() >= 3, "{script} names {tests:?}");
        let unknown: Vec<_> = tests.iter().filter(|test| !known.contains(**test)).collect();
        assert!(unknown.is_empty(), "{script} names tests that do not exist: {unknown:?}");
    }
}

/// Tests that are named in a document exist. The names of other functions, models and lints, and
/// quoted strings, are accepted as well.
#[test]
fn tests_named_in_documents_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join("benches").exists() {
        return println!("skipped: the package does not have every file");
    }
    let mut known = BTreeSet::new();
    for (path, text) in all() {
        // Lists of models have one name per line. Lists of injected bugs have lines such as
        // `name: "switch" by model`.
        let is_list = path.starts_with(root.join("models/tests"));
        for line in text.lines().map(str::trim) {
            let word = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned();
            known.extend(line.match_indices("fn ").map(|(at, _)| word(&line[at + 3..])));
            known.extend(is_list.then(|| word(line)));
            known.extend(line.split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    let lints = manifest();
    let mut complaints = Vec::new();
    let documents = repository().into_iter().filter(|file| file.ends_with(".md"));
    for file in documents {
        let text = document(&file);
        // The pieces with odd indices are between fences. They are code and output, and are not
        // checked.
        for prose in text.split("```").step_by(2) {
            // The name of a test has three words or more.
            let is_name = |word: &&str| {
                word.starts_with(|c: char| c.is_ascii_lowercase())
                    && word.matches('_').count() >= 2
                    && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            };
            let names = prose.split('`').skip(1).step_by(2).filter(is_name);
            let missing = names.filter(|name| !known.contains(*name) && !lints.contains(*name));
            complaints.extend(missing.map(|name| format!("{file}: {name}")));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// Returns the names beside files in a document, as pairs of a path and the last part of the name.
/// A document writes such names as "`file.rs` (`name`, `Type::name`)" or "`name` in `file.rs`".
fn names_beside_files(text: &str) -> Vec<(&str, &str)> {
    fn name(quoted: &str) -> Option<&str> {
        let name = quoted.rsplit("::").next().unwrap();
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        is_name.then_some(name)
    }
    // The pieces with odd indices are quoted.
    let pieces: Vec<_> = text.split('`').collect();
    let mut found = Vec::new();
    for at in (1..pieces.len()).step_by(2).filter(|&at| pieces[at].ends_with(".rs")) {
        let file = pieces[at];
        if at >= 2 && pieces[at - 1] == " in " {
            found.extend(name(pieces[at - 2]).map(|name| (file, name)));
        }
        let mut next = at + 1;
        while next + 1 < pieces.len()
            && (next > at + 1 || pieces[next].starts_with(" ("))
            && !pieces[next].contains(')')
        {
            found.extend(name(pieces[next + 1]).map(|name| (file, name)));
            next += 2;
        }
    }
    found
}

#[test]
fn names_beside_files_are_recognised() {
    let text =
        "`a.rs` (`one`: takes it, `T::two`), `no` in general, `Three::new` in `b/c.rs` (text), `no`, `d.rs` (`e f`)";
    assert_eq!(names_beside_files(text), [("a.rs", "one"), ("a.rs", "two"), ("b/c.rs", "new")]);
}

/// A name that a document mentions beside a file occurs in this file.
#[test]
fn names_beside_files_occur_in_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join("benches").exists() {
        return println!("skipped: the package does not have every file");
    }
    let mut complaints = Vec::new();
    let mut count = 0;
    for document in repository().into_iter().filter(|file| file.ends_with(".md")) {
        for line in fs::read_to_string(root.join(&document)).unwrap().lines() {
            for (file, name) in names_beside_files(line) {
                let source = ["", "src", "tests"]
                    .iter()
                    .find_map(|folder| fs::read_to_string(root.join(folder).join(file)).ok());
                // A file that is named by the end of its path is not checked. `named_files_exist`
                // complains about missing files.
                let Some(source) = source else { continue };
                count += 1;
                complaints.extend((!has_word(&source, name)).then(|| format!("{document}: {file} has no {name}")));
            }
        }
    }
    assert!(complaints.is_empty() && count > 10, "{count} names\n{}", complaints.join("\n"));
}

/// Returns the tests beside names of test binaries in a document, as pairs of the binary and the
/// test. A document writes such tests as "`binary`: `test`, `other_test`" or "`test` in `binary`".
/// The binary may be a path that ends in `.rs`. An ellipsis may replace the beginning of a test's
/// name, as in `…_ending`.
fn tests_beside_binaries(text: &str) -> Vec<(&str, &str)> {
    // Names of other functions and of variables have fewer words.
    let is_test = |quoted: &str| {
        let name = quoted.trim_start_matches('…');
        name.matches('_').count() >= 2 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let is_binary = |quoted: &str| {
        let stem = quoted.strip_suffix(".rs").unwrap_or(quoted);
        !stem.is_empty() && stem.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-/".contains(c))
    };
    // The pieces with odd indices are quoted.
    let pieces: Vec<_> = text.split('`').collect();
    let mut found = Vec::new();
    for at in (1..pieces.len().saturating_sub(2)).step_by(2) {
        let mut next = at + 2;
        if pieces[at + 1] == " in " && is_test(pieces[at]) && is_binary(pieces[next]) {
            found.push((pieces[next], pieces[at]));
        } else if pieces[at + 1] == ": " && is_binary(pieces[at]) {
            while next < pieces.len() && is_test(pieces[next]) {
                found.push((pieces[at], pieces[next]));
                if ![", ", " and ", ", and "].contains(pieces.get(next + 1).unwrap_or(&"")) {
                    break;
                }
                next += 2;
            }
        }
    }
    found
}

#[test]
fn tests_beside_binaries_are_recognised() {
    let text = "`one`: `first_of_one`, `…_of_two`; `a/tests/b.rs`: `is_in_b`, the `not_in_b` and unit test `other_unit_test`; \
        `last_one_here` in `pkg`, `rt::run`: `set_of_run`, `three`: `short_one`";
    let expected =
        [("one", "first_of_one"), ("one", "…_of_two"), ("a/tests/b.rs", "is_in_b"), ("pkg", "last_one_here")];
    assert_eq!(tests_beside_binaries(text), expected);
}

/// Returns whether a test binary has a test of this name. `lib` stands for the unit tests, and
/// `hyper`, `quinn` and `resolver` for all tests of the package. A path stands for this file and
/// the files in the folder of the same name beside it, and any other name for `tests/NAME.rs` and
/// the files in `tests/NAME`.
fn has_test(files: &[(PathBuf, String)], binary: &str, test: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = match binary {
        "lib" => root.join("src"),
        "hyper" | "quinn" | "resolver" => root.join(binary),
        path if path.ends_with(".rs") => root.join(path.trim_end_matches(".rs")),
        name => root.join("tests").join(name),
    };
    let file = folder.with_extension("rs");
    let begin = match test.strip_prefix('…') {
        Some(ending) => format!("{ending}("),
        None => format!("fn {}(", test.rsplit("::").next().unwrap()),
    };
    files.iter().any(|(path, text)| (*path == file || path.starts_with(&folder)) && text.contains(&begin))
}

/// A test that a document mentions beside a test binary is in this binary.
#[test]
fn tests_named_beside_binaries_are_in_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join("benches").exists() {
        return println!("skipped: the package does not have every file");
    }
    let files = all();
    let mut complaints = Vec::new();
    let mut count = 0;
    for name in repository().into_iter().filter(|file| file.ends_with(".md")) {
        for line in document(&name).lines() {
            for (binary, test) in tests_beside_binaries(line) {
                count += 1;
                let is_there = has_test(&files, binary, test);
                complaints.extend((!is_there).then(|| format!("{name}: {binary} has no test {test}")));
            }
        }
    }
    assert!(complaints.is_empty() && count > 100, "{count} tests\n{}", complaints.join("\n"));
}

/// Each patch in `ci/reintroduced` names a test that fails with the patch, and the test's binary.
/// The test is in this binary.
#[test]
fn tests_named_in_patches_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("ci/reintroduced");
    if !root.exists() {
        return println!("skipped: the package does not have every file");
    }
    let files = all();
    for patch in names("ci/reintroduced", ".patch") {
        let text = fs::read_to_string(root.join(format!("{patch}.patch"))).unwrap();
        let named = text.lines().find_map(|line| line.strip_prefix("Test: ")).and_then(|named| named.split_once(' '));
        let (binary, test) = named.unwrap_or_else(|| panic!("{patch} names no test"));
        assert!(has_test(&files, binary, test), "{patch}: {binary} has no test {test}");
    }
}

/// Returns the text of a file of the package.
fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Returns the original `Cargo.toml`. In a package, cargo stores it as `Cargo.toml.orig`, next to a
/// generated `Cargo.toml`.
fn manifest() -> String {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml.orig");
    fs::read_to_string(packed).unwrap_or_else(|_| document("Cargo.toml"))
}

/// Returns the names, without the ending, of a folder's files that have this ending. Returns no
/// names if the package does not have the folder.
fn names(folder: &str, ending: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(ending).map(str::to_owned)).collect()
}

/// README and the crate page list all features except `default`, README lists all examples, and
/// CONTRIBUTING lists all shell scripts of `ci` except one that another script sources.
#[test]
fn documents_list_features_examples_and_scripts() {
    let manifest = manifest();
    let features = manifest.split("\n[features]\n").nth(1).unwrap().lines().take_while(|line| !line.starts_with('['));
    let features =
        features.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).filter(|name| *name != "default");
    let (readme, crate_page, contributing) =
        (document("README.md"), document("src/lib.rs"), document("CONTRIBUTING.md"));
    let mut missing = Vec::new();
    for name in features {
        let quoted = format!("`{name}`");
        missing.extend((!readme.contains(&format!("| {quoted}"))).then(|| format!("README: {quoted}")));
        missing.extend((!crate_page.contains(&format!("//! * {quoted}"))).then(|| format!("lib.rs: {quoted}")));
    }
    for folder in ["examples", "examples/ecosystem"] {
        let examples = names(folder, ".rs").into_iter().map(|name| format!("({folder}/{name}.rs)"));
        missing.extend(examples.filter(|link| !readme.contains(link)));
    }
    // `conformance.sh` sources this script.
    let scripts = names("ci", ".sh").into_iter().filter(|name| name != "conformance-programs");
    missing.extend(scripts.map(|name| format!("ci/{name}.sh")).filter(|script| !contributing.contains(script)));
    assert!(missing.is_empty(), "{missing:?}");
}

/// The HTTP program in README needs other crates, so its documentation test is ignored. Each of its
/// lines is in an example that is compiled and tested.
#[test]
fn readme_http_program_is_an_example() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ecosystem/axum_hello.rs");
    let Ok(example) = fs::read_to_string(path) else { return println!("skipped: the package has no such example") };
    let example: BTreeSet<_> = example.lines().collect();
    let readme = document("README.md");
    let program = readme.split("```rust,ignore\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(program.lines().count() > 10, "{program}");
    let missing: Vec<_> = program.lines().filter(|line| !example.contains(line)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Returns the files of the repository, as paths from its root, except build output, Git data and
/// inputs that fuzzers generate.
fn repository() -> BTreeSet<String> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if !path.is_dir() {
                found.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
            } else if !["target", ".git", "corpus", "artifacts"].contains(&name.as_str()) {
                walk(root, &path, found);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    walk(root, root, &mut found);
    found
}

/// Returns the names in a line that look like names of Rust, Markdown, shell or Python files of the
/// repository, such as `ci/faults.sh`, `operation.rs` or `docs/MIGRATION.md`. Skips absolute paths,
/// URLs, and names that begin with a variable or a wildcard.
fn named_files(line: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(start) = line[at..].find(is_part).map(|offset| at + offset) {
        at = line[start..].find(|c| !is_part(c)).map_or(line.len(), |offset| start + offset);
        let name = line[start..at].trim_end_matches(['.', '/']);
        let name = name.trim_start_matches("../").trim_start_matches("./");
        let (stem, ending) = name.rsplit_once('.').unwrap_or_default();
        let is_file = ["rs", "md", "sh", "py"].contains(&ending) && !stem.is_empty() && !stem.ends_with('/');
        let is_made_up = line[..start].ends_with(['$', '}', '{', '*']) || name.contains("//") || name.starts_with('/');
        if is_file && !is_made_up {
            names.push(name);
        }
    }
    names
}

#[test]
fn file_names_are_recognised() {
    for (line, names) in [
        ("//! `ci/chaos.sh` sets them.", &["ci/chaos.sh"][..]),
        (
            "see [this](../docs/A.md#part), rt/poll/epoll.rs:12 and ci/x.py.",
            &["docs/A.md", "rt/poll/epoll.rs", "ci/x.py"],
        ),
        ("#[path = \"../../tests/common/mod.rs\"]", &["tests/common/mod.rs"]),
        ("cp \"$out/a.sh\" ${b}/c.rs /tmp/d.md https://docs.rs/e/f.rs {name}.rs *.md", &[]),
        ("`.md` names only; tests.rs_ is none", &[]),
    ] {
        assert_eq!(named_files(line), names, "{line}");
    }
}

/// Scripts, source files and documents named in a text exist.
#[test]
fn named_files_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join("benches").exists() {
        return println!("skipped: the package does not have every file");
    }
    let files = repository();
    // A file may be named by the end of its path: `poller.rs`, `rt/poll/poller.rs`.
    let mut ends = BTreeSet::new();
    for file in &files {
        let starts = file.match_indices('/').map(|(at, _)| at + 1);
        ends.extend([0].into_iter().chain(starts).map(|start| &file[start..]));
    }
    // `docs.rs` is a web site, `target/` has generated files, and the others are pages of
    // async-std's book.
    let is_elsewhere = |name: &str| {
        name == "docs.rs" || ["target/", "tutorial/", "concepts/"].iter().any(|folder| name.starts_with(folder))
    };
    let is_read = |file: &&String| {
        [".rs", ".md", ".sh"].iter().any(|ending| file.ends_with(ending)) || file.as_str() == ".ci/run"
    };
    let texts = files.iter().filter(is_read).filter(|file| *file != "tests/tidy.rs");
    let texts: Vec<_> = texts.map(|file| (PathBuf::from(file), fs::read_to_string(root.join(file)).unwrap())).collect();
    assert!(texts.len() > 200, "{}", texts.len());
    check_lines(&texts, |line| {
        let missing = |name: &&str| !ends.contains(*name) && !is_elsewhere(name);
        named_files(line).into_iter().find(missing).map(|name| format!("there is no {name}"))
    });
    // Tests and examples that are named in cargo commands exist too.
    check_lines(&texts, |line| {
        let target = |option: &str, folders: &[&str]| {
            let (_, rest) = line.split_once(option)?;
            let name =
                rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())?;
            let is_there = |folder: &&str| {
                ends.contains(format!("{folder}/{name}.rs").as_str())
                    || ends.contains(format!("{folder}/{name}/main.rs").as_str())
            };
            let is_variable = name.chars().all(|c| c.is_ascii_uppercase());
            (!is_variable && !folders.iter().any(is_there)).then(|| format!("there is no{option}{name}"))
        };
        target(" --test ", &["tests"]).or_else(|| target(" --example ", &["examples", "examples/ecosystem"]))
    });
}

/// The direct dependencies that are not optional are exactly these. The default build also has the
/// macros of the feature `attributes`.
#[test]
fn default_dependencies_are_unchanged() {
    let manifest = manifest();
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap();
    let names: Vec<_> = section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.contains("optional = true"))
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name))
        .collect();
    assert_eq!(
        names,
        ["async-task", "futures-core", "futures-io", "futures-lite", "libc", "pin-project-lite", "socket2"]
    );
}

/// Returns the text of a line that is a comment, without the comment marker.
fn comment(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("//").map(|text| text.trim_start_matches(['/', '!']).trim_start())
}

/// Returns whether a comment has "a" for "per": `two calls a request`, `512 workers a process`.
fn says_a_for_per(text: &str) -> bool {
    const UNITS: [&str; 12] = [
        "call",
        "connection",
        "datagram",
        "direction",
        "process",
        "processor",
        "request",
        "second",
        "socket",
        "thread",
        "turn",
        "worker",
    ];
    const COUNTS: [&str; 6] = ["one", "two", "three", "once", "twice", "times"];
    const PREPOSITIONS: [&str; 15] =
        ["and", "as", "at", "by", "for", "from", "in", "is", "of", "on", "or", "than", "that", "to", "with"];
    let words: Vec<_> = text.split_whitespace().collect();
    words.windows(3).enumerate().any(|(at, three)| {
        let unit = three[2].trim_end_matches(|c: char| !c.is_alphanumeric());
        let is_number =
            |word: &str| word.bytes().all(|byte| byte.is_ascii_digit() || byte == b',') && !word.ends_with(',');
        let is_count = COUNTS.contains(&three[0])
            || is_number(three[0])
            || at > 0
                && (is_number(words[at - 1]) || COUNTS.contains(&words[at - 1]))
                && !PREPOSITIONS.contains(&three[0]);
        three[1] == "a" && UNITS.contains(&unit) && is_count
    })
}

/// Comments of the library and of its macros have none of these phrases, and say "per" where "a"
/// would mean "per". See also `texts_are_plain`.
#[test]
fn comments_are_plain_english() {
    const BANNED: [&str; 3] = ["who waits", "see the module's header", "bears"];
    assert!(says_a_for_per("512 workers a process") && says_a_for_per("one slot a direction."));
    assert!(!says_a_for_per("starts a process") && !says_a_for_per("one of a process"));
    let files: Vec<_> = ["src", "macros"].into_iter().flat_map(sources).collect();
    check_lines(&files, |line| {
        let original = comment(line)?;
        let text = original.to_lowercase();
        let phrase = BANNED.iter().find(|phrase| {
            text.match_indices(**phrase).any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric()))
        });
        let phrase = phrase.map(|phrase| format!("say it without {phrase:?}"));
        phrase.or_else(|| says_a_for_per(original).then(|| "say \"per\"".to_owned()))
    });
}

/// The first line of a doc comment is not `Sets it.` and does not begin with `Sets it;` or
/// `The same`, because search results show only this line.
#[test]
fn first_lines_of_documentation_stand_alone() {
    let mut complaints = Vec::new();
    for (path, text) in ["src", "macros"].into_iter().flat_map(sources) {
        let mut is_inside = false;
        for (line, number) in text.lines().zip(1..) {
            let documentation = line.trim_start().strip_prefix("///");
            let first = documentation.filter(|_| !is_inside).map(str::trim_start).unwrap_or_default();
            if first == "Sets it." || first.starts_with("Sets it;") || first.starts_with("The same") {
                complaints.push(format!("{}:{number}: {first}", path.display()));
            }
            is_inside = documentation.is_some();
        }
    }
    assert!(complaints.is_empty(), "these first lines do not stand alone:\n{}", complaints.join("\n"));
}
