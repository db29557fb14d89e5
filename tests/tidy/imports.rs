//! The imports between the files of `src`: which file uses a name that another file defines.
//!
//! This module analyses text, not types. It follows `use` items, paths that begin with `crate`,
//! `super` or `self`, and paths that begin with a child module or an imported name, through
//! re-exports to the file that defines the name. It ignores the item after each `#[cfg(test)]`, and
//! files whose names end in `tests`. It also ignores method calls, which need no import.

use std::collections::{BTreeMap, BTreeSet};

/// The files that each file uses. A file is given by its path in `src`.
pub(crate) type Graph = BTreeMap<String, BTreeSet<String>>;

/// A module: its file, and the names in it.
#[derive(Default)]
struct Module {
    file: String,
    children: BTreeSet<String>,
    /// The names that `use` items define, and the path for which each name stands. A path may be
    /// relative.
    aliases: BTreeMap<String, Vec<String>>,
    /// The modules of `use …::*`.
    globs: Vec<Vec<String>>,
    /// The names of items that the file itself defines.
    items: BTreeSet<String>,
    /// The paths of `use` items that are not re-exports, and the paths of two or more names in
    /// other code.
    paths: Vec<Vec<String>>,
}

type Modules = BTreeMap<Vec<String>, Module>;

/// Returns the graph of `files`, which are pairs of a path in `src` and the text of the file.
pub(crate) fn graph(files: &[(String, String)]) -> Graph {
    let mut modules = Modules::new();
    for (file, text) in files {
        if !file.trim_end_matches(".rs").ends_with("tests") {
            modules.insert(module_of(file), parse(file, text));
        }
    }
    let names: Vec<_> = modules.keys().cloned().collect();
    for name in names {
        if let Some((last, parent)) = name.split_last()
            && let Some(parent) = modules.get_mut(parent)
        {
            parent.children.insert(last.clone());
        }
    }
    let mut graph = Graph::new();
    for (name, module) in &modules {
        let used = module.paths.iter().filter_map(|path| resolve(&modules, name, path, 0));
        let used = used.filter(|file| *file != module.file);
        graph.entry(module.file.clone()).or_default().extend(used);
    }
    graph
}

/// Returns the path of a file's module. For example, `net/tcp/mod.rs` is `net::tcp`, and `lib.rs`
/// is the root.
fn module_of(file: &str) -> Vec<String> {
    let mut name: Vec<_> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(name.last().map(String::as_str), Some("mod" | "lib")) {
        name.pop();
    }
    name
}

/// Returns the file that defines the item or module that `path` names in the module `from`. Returns
/// `None` if the path begins outside the crate or with a local name, or if more than 16 aliases or
/// globs follow one another.
fn resolve(modules: &Modules, from: &[String], path: &[String], depth: u32) -> Option<String> {
    if depth > 16 {
        return None;
    }
    let mut at = from.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => (at, rest) = (Vec::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|segment| segment == "super") {
                at.pop()?;
                rest = &rest[1..];
            }
        }
        first => {
            // Only child modules and imported names are followed. Any other name is that of a
            // crate, is local, or comes from a glob import.
            let module = &modules[from];
            if !module.children.contains(first) && !module.aliases.contains_key(first) {
                return None;
            }
        }
    }
    for (index, segment) in rest.iter().enumerate() {
        let module = modules.get(&at)?;
        let aliased = module.aliases.get(segment).filter(|target| target[..] != rest[index..]);
        if module.children.contains(segment) {
            at.push(segment.clone());
        } else if module.items.contains(segment) {
            return Some(module.file.clone());
        } else if let Some(target) = aliased {
            let target: Vec<_> = target.iter().chain(&rest[index + 1..]).cloned().collect();
            return resolve(modules, &at, &target, depth + 1);
        } else {
            let defines = |glob: &Vec<String>| {
                let target: Vec<_> = glob.iter().chain(&rest[index..]).cloned().collect();
                let file = resolve(modules, &at, &target, depth + 1)?;
                let defining = modules.values().find(|module| module.file == file)?;
                defining.items.contains(segment).then_some(file)
            };
            return module.globs.iter().find_map(defines).or_else(|| Some(module.file.clone()));
        }
    }
    modules.get(&at).map(|module| module.file.clone())
}

/// Returns the module of a file with this text. The module has no children yet.
fn parse(file: &str, text: &str) -> Module {
    let mut module = Module { file: file.to_owned(), ..Module::default() };
    let tokens = without_tests(&tokens(text));
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at].as_str();
        match token {
            "use" => {
                let is_public = at > 0 && (tokens[at - 1] == "pub" || tokens[at - 1] == ")");
                let end = at + tokens[at..].iter().position(|token| token == ";").unwrap_or(tokens.len() - at);
                for (path, name) in use_tree(&tokens[at + 1..end]) {
                    if !is_public {
                        module.paths.push(path.clone());
                    }
                    if name == "*" {
                        module.globs.push(path);
                    } else {
                        module.aliases.insert(name, path);
                    }
                }
                at = end;
            }
            "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" => {
                if let Some(name) = tokens.get(at + 1) {
                    module.items.insert(name.clone());
                }
                at += 1;
            }
            "macro_rules" => {
                module.items.extend(tokens.get(at + 2).cloned());
                at += 2;
            }
            _ if is_name(token) && (at == 0 || tokens[at - 1] != "::") => {
                let begin = at.checked_sub(1).map(|at| tokens[at].as_str());
                let mut path = vec![token.to_owned()];
                while tokens.get(at + 1).is_some_and(|token| token == "::")
                    && tokens.get(at + 2).is_some_and(|token| is_name(token))
                {
                    path.push(tokens[at + 2].clone());
                    at += 2;
                }
                // `$crate` refers to the crate that defines the macro.
                if path.len() > 1 && begin.is_none_or(|before| before != "$") {
                    module.paths.push(path);
                }
            }
            _ => {}
        }
        at += 1;
    }
    module
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Returns the paths of a `use` item, each with its name in the module. The name of a glob import
/// is `*`.
fn use_tree(tokens: &[String]) -> Vec<(Vec<String>, String)> {
    fn walk(tokens: &[String], at: &mut usize, prefix: &[String], found: &mut Vec<(Vec<String>, String)>) {
        let mut path = prefix.to_vec();
        while *at < tokens.len() {
            match tokens[*at].as_str() {
                "::" => *at += 1,
                "{" => {
                    *at += 1;
                    while tokens[*at] != "}" {
                        walk(tokens, at, &path, found);
                        *at += usize::from(tokens[*at] == ",");
                    }
                    *at += 1;
                    return;
                }
                "*" => {
                    *at += 1;
                    return found.push((path, "*".to_owned()));
                }
                "as" => {
                    *at += 2;
                    return found.push((path, tokens[*at - 1].clone()));
                }
                "," | "}" => break,
                segment => {
                    // `a::{self}` is `a`.
                    if segment != "self" || path.is_empty() {
                        path.push(segment.to_owned());
                    }
                    *at += 1;
                    if tokens.get(*at).is_none_or(|token| token != "::" && token != "as") {
                        break;
                    }
                }
            }
        }
        let name = path.last().cloned().unwrap_or_default();
        found.push((path, name));
    }
    let mut found = Vec::new();
    walk(tokens, &mut 0, &[], &mut found);
    found
}

/// Splits a text into names, numbers, `::` and other single characters. Leaves out white space,
/// line comments, character literals and lifetimes. A string becomes the token `"`.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let (c, next) = (chars[at], chars.get(at + 1).copied());
        if c == '/' && next == Some('/') {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if c == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += 1 + usize::from(chars[at] == '\\');
            }
            at += 1;
            tokens.push("\"".to_owned());
        } else if c == '\'' {
            // Skips a character literal or a lifetime. A lifetime has no closing quote.
            if next == Some('\\') {
                at += 3;
                while chars.get(at).is_some_and(|&c| c != '\'') {
                    at += 1;
                }
                at += 1;
            } else if chars.get(at + 2) == Some(&'\'') {
                at += 3;
            } else {
                at += 2;
                while chars.get(at).is_some_and(|c| c.is_alphanumeric() || *c == '_') {
                    at += 1;
                }
            }
        } else if c.is_alphanumeric() || c == '_' {
            let begin = at;
            while chars.get(at).is_some_and(|c| c.is_alphanumeric() || *c == '_') {
                at += 1;
            }
            tokens.push(chars[begin..at].iter().collect());
        } else if c == ':' && next == Some(':') {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            at += 1;
        }
    }
    tokens
}

/// Removes each item that follows `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let cfg_test = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().map(String::as_str).take(cfg_test.len()).eq(cfg_test) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        at += cfg_test.len();
        let mut depth = 0;
        while at < tokens.len() {
            match tokens[at].as_str() {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 && matches!(tokens[at - 1].as_str(), "}" | ";") {
                break;
            }
        }
    }
    kept
}

/// Returns the cycles. A cycle is a set of files that all use one another, directly or through
/// other files.
pub(crate) fn cycles(graph: &Graph) -> Vec<Vec<String>> {
    let reach = |from: &String| {
        let mut reached = BTreeSet::new();
        let mut next = vec![from];
        while let Some(file) = next.pop() {
            for used in graph.get(file).into_iter().flatten() {
                if reached.insert(used.clone()) {
                    next.push(used);
                }
            }
        }
        reached
    };
    let reached: BTreeMap<_, _> = graph.keys().map(|file| (file, reach(file))).collect();
    let mut cycles = BTreeSet::new();
    for (file, reaches) in &reached {
        let cycle: Vec<_> = reaches
            .iter()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(*file)))
            .cloned()
            .collect();
        if !cycle.is_empty() {
            cycles.insert(cycle);
        }
    }
    cycles.into_iter().collect()
}
