//! Finds the name under which the compiled crate depends on `netpoll`.
//!
//! A dependency may be renamed (`np = { package = "netpoll" }`), and a procedural macro does not
//! have `$crate`. Cargo sets `CARGO_MANIFEST_DIR` to the directory of the manifest. Only a few
//! scalar values of the manifest are needed, so this module parses them itself. A TOML parser would
//! add several crates to the build.
//!
//! A package may have several dependencies that contain netpoll: two versions of netpoll, or the
//! stand-in for async-std and, for simulations in the package's tests, netpoll. The programs of a
//! package cannot use its development dependencies, so a name in `[dependencies]` takes precedence.
//!
//! If the name is not found (in a build without Cargo, or if the dependency is indirect), `netpoll`
//! is used. The argument `crate = "…"` overrides the name.

use std::cell::LazyCell;
use std::path::{Path, PathBuf};

use crate::expand::Attribute;

const NETPOLL: &str = "netpoll";

/// The name of the package async-std. The stand-in that replaces it (`[patch.crates-io]`) has this
/// name too, and contains the items that the expansions use.
const STAND_IN: &str = "async-std";

/// Returns the name of netpoll in the compiled crate, as an identifier.
pub(crate) fn name_of_netpoll(attribute: Attribute) -> String {
    let found = std::env::var_os("CARGO_MANIFEST_DIR").and_then(|dir| find(Path::new(&dir), attribute));
    found.unwrap_or_else(|| NETPOLL.to_owned())
}

/// Returns the name for the package whose manifest is in `dir`, or `None` if the package has no
/// such dependency.
fn find(dir: &Path, attribute: Attribute) -> Option<String> {
    let values = read(&dir.join("Cargo.toml"))?;
    let shared = LazyCell::new(|| workspace(&values, dir));
    let names: Vec<(Dependency<'_>, String)> = dependencies(&values)
        .filter_map(|dependency| Some((dependency, package(&values, dependency.name, || shared.as_deref())?)))
        .collect();
    let find = |wanted: &str| {
        let all = names.iter().filter(|(_, package)| package == wanted).map(|(dependency, _)| dependency);
        // A dependency under the package's own name takes precedence over a renamed one.
        all.min_by_key(|dependency| (!dependency.is_normal, dependency.name != wanted))
    };
    let (netpoll, stand_in) = (find(NETPOLL), find(STAND_IN));
    // A test may use items that only netpoll has. If async-std is not replaced, the attribute is
    // netpoll's.
    let prefers_stand_in = attribute == Attribute::Main
        && netpoll.is_some_and(|netpoll| !netpoll.is_normal)
        && stand_in.is_some_and(|stand_in| stand_in.is_normal)
        && is_async_std_replaced(&values, dir);
    let found = if prefers_stand_in { stand_in } else { netpoll.or(stand_in) };
    found.map(|dependency| dependency.name.replace('-', "_"))
}

/// Returns whether the package's manifest, that of its workspace, or one in a parent directory
/// replaces async-std in `[patch]`, or names a source other than a registry for async-std.
fn is_async_std_replaced(values: &[Value], dir: &Path) -> bool {
    let replaces = |(keys, value): &Value| match &keys.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["patch", _, name, ..] if *name == STAND_IN => true,
        ["patch", _, _, "package"] => value == STAND_IN,
        [.., "dependencies", name, "git" | "path"] => *name == STAND_IN,
        _ => false,
    };
    let named = values.iter().find(|(keys, _)| *keys == ["package", "workspace"]).map(|(_, path)| dir.join(path));
    let folders = named.into_iter().chain(dir.ancestors().map(Path::to_owned));
    folders.filter_map(|folder| read(&folder.join("Cargo.toml"))).any(|values| values.iter().any(replaces))
}

/// A scalar value of a manifest: its keys, and its text without quotes.
type Value = (Vec<String>, String);

/// Returns the values of a manifest, or `None` if the file cannot be read.
fn read(manifest: &Path) -> Option<Vec<Value>> {
    Some(values(&std::fs::read_to_string(manifest).ok()?))
}

/// Returns the keys after `dependencies`, `dev-dependencies` or `build-dependencies`, also below
/// `target.'…'`. Returns `None` for other keys.
fn dependency_keys(keys: &[String]) -> Option<&[String]> {
    let keys = if keys.first()? == "target" { keys.get(2..)? } else { keys };
    matches!(keys.first()?.as_str(), "dependencies" | "dev-dependencies" | "build-dependencies").then(|| &keys[1..])
}

/// A dependency: its name, and whether it is neither a development dependency nor a build
/// dependency.
#[derive(Clone, Copy)]
struct Dependency<'a> {
    name: &'a str,
    is_normal: bool,
}

/// Returns the dependencies, in order. A dependency occurs as often as it has scalar values.
fn dependencies(values: &[Value]) -> impl Iterator<Item = Dependency<'_>> {
    values.iter().filter_map(|(keys, _)| {
        let name = dependency_keys(keys)?.first()?;
        let section = &keys[if keys[0] == "target" { 2 } else { 0 }];
        Some(Dependency { name, is_normal: section == "dependencies" })
    })
}

/// Returns the package of the dependency `name`. If the dependency is inherited, looks up the
/// package in `shared`, the values of the workspace's manifest, and returns `None` if this manifest
/// is not found.
fn package<'a>(values: &[Value], name: &str, shared: impl Fn() -> Option<&'a [Value]>) -> Option<String> {
    let key = |wanted: &str| {
        let is_wanted =
            |keys: &[String]| matches!(dependency_keys(keys), Some([of, key]) if of == name && key == wanted);
        values.iter().find(|(keys, _)| is_wanted(keys)).map(|(_, value)| value.clone())
    };
    if let Some(package) = key("package") {
        return Some(package);
    }
    if key("workspace").as_deref() == Some("true") {
        let renamed = shared()?.iter().find(|(keys, _)| *keys == ["workspace", "dependencies", name, "package"]);
        return Some(renamed.map_or(name, |(_, package)| package).to_owned());
    }
    Some(name.to_owned())
}

/// Returns the values of the workspace's manifest. This is the manifest that `package.workspace`
/// names or, without this key, the nearest manifest in `dir` and its parent directories that has a
/// workspace.
fn workspace(values: &[Value], dir: &Path) -> Option<Vec<Value>> {
    if let Some((_, path)) = values.iter().find(|(keys, _)| *keys == ["package", "workspace"]) {
        return read(&dir.join(path).join("Cargo.toml"));
    }
    let is_root =
        |values: &Vec<Value>| values.iter().any(|(keys, _)| keys.first().is_some_and(|key| key == "workspace"));
    let folders: Vec<PathBuf> = dir.ancestors().map(Path::to_owned).collect();
    folders.iter().filter_map(|folder| read(&folder.join("Cargo.toml"))).find(is_root)
}

/// Returns the scalar values of a TOML document. Arrays are skipped. Malformed text is ignored,
/// because cargo reports it.
fn values(text: &str) -> Vec<Value> {
    let mut scanner = Scanner { rest: text, values: Vec::new() };
    let mut table = Vec::new();
    loop {
        scanner.skip_blank(true);
        if scanner.rest.is_empty() {
            return scanner.values;
        }
        let read = if let Some(rest) = scanner.rest.strip_prefix('[') {
            scanner.rest = rest.strip_prefix('[').unwrap_or(rest);
            scanner.keys().map(|keys| table = keys)
        } else {
            scanner.pair(&table)
        };
        if read.is_none() {
            // Skips the rest of a line that cannot be parsed.
            scanner.rest = scanner.rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if scanner.rest.starts_with(']') {
            scanner.rest = scanner.rest.trim_start_matches(']');
        }
    }
}

/// The rest of a document, and the values found so far.
struct Scanner<'a> {
    rest: &'a str,
    values: Vec<Value>,
}

impl Scanner<'_> {
    /// Skips blanks and, if `lines` is true, also line ends and comments.
    fn skip_blank(&mut self, lines: bool) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r']);
            if !lines {
                return;
            }
            match self.rest.chars().next() {
                Some('\n') => self.rest = &self.rest[1..],
                Some('#') => self.rest = self.rest.find('\n').map_or("", |at| &self.rest[at..]),
                _ => return,
            }
        }
    }

    /// Skips blanks, and takes `token` if it is next.
    fn take(&mut self, token: char) -> Option<()> {
        self.skip_blank(false);
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    /// Parses a dotted key such as `a."b".'c'`.
    fn keys(&mut self) -> Option<Vec<String>> {
        let mut keys = Vec::new();
        loop {
            self.skip_blank(false);
            keys.push(match self.rest.chars().next()? {
                '"' | '\'' => self.string()?,
                _ => self.word(|char| char.is_alphanumeric() || char == '_' || char == '-')?,
            });
            if self.take('.').is_none() {
                return Some(keys);
            }
        }
    }

    /// Takes the longest text of characters for which `is_part` returns true, unless it is empty.
    fn word(&mut self, is_part: fn(char) -> bool) -> Option<String> {
        let end = self.rest.find(|char| !is_part(char)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then(|| word.to_owned())
    }

    /// Parses `keys = value`, and records the scalars of the value under `table` followed by
    /// `keys`.
    fn pair(&mut self, table: &[String]) -> Option<()> {
        let keys = self.keys()?;
        self.take('=')?;
        self.value(&[table, &keys].concat())
    }

    /// Parses a value, and records its scalars under `keys`.
    fn value(&mut self, keys: &[String]) -> Option<()> {
        self.skip_blank(false);
        let value = match self.rest.chars().next()? {
            '"' | '\'' => self.string()?,
            '{' => return self.list('{', '}', |scanner| scanner.pair(keys)),
            // Tables in arrays are not dependencies of this package.
            '[' => {
                let count = self.values.len();
                self.list('[', ']', |scanner| scanner.value(&[]))?;
                self.values.truncate(count);
                return Some(());
            }
            _ => self.word(|char| !char.is_whitespace() && !",]}#".contains(char))?,
        };
        self.values.push((keys.to_vec(), value));
        Some(())
    }

    /// Parses items separated by commas, between `open` and `close`.
    fn list(&mut self, open: char, close: char, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(open)?;
        loop {
            self.skip_blank(true);
            if self.take(close).is_some() {
                return Some(());
            }
            item(self)?;
            self.skip_blank(true);
            if self.take(',').is_none() {
                return self.take(close);
            }
        }
    }

    /// Parses a string of any of TOML's four kinds. Escapes are not decoded, because the values
    /// that this module uses need none.
    fn string(&mut self) -> Option<String> {
        let quote = if self.rest.starts_with('"') { '"' } else { '\'' };
        let long = quote.to_string().repeat(3);
        let (delimiter, body) = match self.rest.strip_prefix(&long) {
            Some(body) => (long.as_str(), body),
            None => (&long[..1], &self.rest[1..]),
        };
        let mut at = 0;
        loop {
            let next = body[at..].find(|char| char == quote || char == '\\' && quote == '"')? + at;
            if body[next..].starts_with('\\') {
                at = next + 1 + body[next + 1..].chars().next()?.len_utf8();
            } else if body[next..].starts_with(delimiter) {
                self.rest = &body[next + delimiter.len()..];
                return Some(body[..next].to_owned());
            } else {
                at = next + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(manifest: &str) -> Option<String> {
        let folder = Folder::new("found", &[("Cargo.toml", manifest)]);
        find(&folder.0, Attribute::Main)
    }

    #[test]
    fn renamed_dependency_is_found_however_it_is_written() {
        for manifest in [
            "[dependencies]\nnp = { package = \"netpoll\", version = \"1\" }",
            "[dependencies]\nnp = { version = \"1\", package = 'netpoll' } # here",
            "[dependencies.np]\nversion = \"1\"\npackage = \"netpoll\"",
            "[dependencies]\nnp.version = \"1\"\nnp . package = \"netpoll\"",
            "[dev-dependencies]\nother = \"1\"\n\"np\" = { package = \"netpoll\", features = [\n  \"hyper\", # one\n  \"tower\",\n] }",
            "[target.'cfg(unix)'.dependencies]\nnp = { path = \"a\\\"}b\", package = \"netpoll\" }",
            "[target.\"cfg(target_os = \\\"linux\\\")\".build-dependencies.np]\npackage = \"netpoll\"",
            "description = \"\"\"\n[dependencies]\nno = { package = \"netpoll\" }\n\"\"\"\n[dependencies]\nnp = {package=\"netpoll\"}",
            "[[bin]]\nname = \"netpoll\"\n[features]\na = [\"dep:np\"]\r\n[dependencies]\r\nnp = { package = \"netpoll\" }\r\n",
            "[dependencies]\nnp = {\n  package = \"netpoll\",\n}\n",
        ] {
            assert_eq!(found(manifest).as_deref(), Some("np"), "{manifest}");
        }
    }

    #[test]
    fn other_dependencies_are_ignored() {
        for manifest in [
            "",
            "[package]\nname = \"netpoll\"",
            "[dependencies]\nnetpoll = { package = \"other\" }",
            "[dependencies]\n# np = { package = \"netpoll\" }",
            "[patch.crates-io]\nnp = { package = \"netpoll\" }",
            "[workspace.dependencies]\nnp = { package = \"netpoll\" }",
            "[features]\nnp = [{ package = \"netpoll\" }]",
            "[dependencies\nnp = \"unfinished",
            "[dependencies]\nnp = { package = \"netpoll",
            "= = =\n\"\"\"",
        ] {
            assert_eq!(found(manifest), None, "{manifest}");
        }
        assert_eq!(found("[dependencies]\nnetpoll = \"1\"").as_deref(), Some("netpoll"));
        assert_eq!(found("[dependencies]\nwhat is this\nnetpoll.git = \"…\"").as_deref(), Some("netpoll"));
    }

    /// A temporary directory, which is removed when the value is dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, files: &[(&str, &str)]) -> Folder {
            let name = format!("netpoll-macros-{name}-{}-{:?}", std::process::id(), std::thread::current().id());
            let folder = Folder(std::env::temp_dir().join(name));
            for (file, text) in files {
                let file = folder.0.join(file);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, text).unwrap();
            }
            folder
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn name_is_inherited_from_the_workspace() {
        let root = "[workspace]\nmembers = [\"a/b\"]\n[workspace.dependencies]\nmy-np = { package = \"netpoll\", path = \"…\" }\n";
        let member = "[package]\nname = \"b\"\n[dependencies]\nserde = \"1\"\nmy-np = { workspace = true, features = [\"hyper\"] }\n";
        let above = Folder::new("above", &[("Cargo.toml", root), ("a/b/Cargo.toml", member)]);
        assert_eq!(find(&above.0.join("a/b"), Attribute::Main).as_deref(), Some("my_np"));
        let named = member
            .replace("[dependencies]", "workspace = \"../root\"\n[dependencies]")
            .replace("{ workspace = true, features = [\"hyper\"] }", "{workspace=true}");
        let beside = Folder::new("beside", &[("root/Cargo.toml", root), ("b/Cargo.toml", &named)]);
        assert_eq!(find(&beside.0.join("b"), Attribute::Main).as_deref(), Some("my_np"));
        assert_eq!(find(&beside.0, Attribute::Main), None);
    }

    #[test]
    fn plain_name_is_preferred() {
        let manifest = "[dependencies]\nold = { package = \"netpoll\", version = \"0.1\" }\nnetpoll = \"0.2\"\n";
        let folder = Folder::new("plain", &[("Cargo.toml", manifest)]);
        assert_eq!(find(&folder.0, Attribute::Main).as_deref(), Some("netpoll"));
        let manifest = "[dependencies]\nnetpoll = { package = \"other\" }\nnp = { package = \"netpoll\" }\n";
        let folder = Folder::new("other", &[("Cargo.toml", manifest)]);
        assert_eq!(find(&folder.0, Attribute::Main).as_deref(), Some("np"));
    }

    #[test]
    fn stand_in_for_async_std_is_found_where_netpoll_is_not() {
        let manifest = "[dependencies]\nasync-std = \"1\"\n";
        let folder = Folder::new("stand-in", &[("Cargo.toml", manifest)]);
        assert_eq!(find(&folder.0, Attribute::Main).as_deref(), Some("async_std"));
        let folder = Folder::new("both", &[("Cargo.toml", &format!("{manifest}netpoll = \"0.1\"\n"))]);
        assert_eq!(find(&folder.0, Attribute::Main).as_deref(), Some("netpoll"));
    }

    /// Regression: the macro used the name of the development dependency, which a program cannot
    /// use.
    #[test]
    fn development_dependency_is_not_preferred() {
        let sim = "[dev-dependencies]\nnetpoll = { version = \"0.2\", features = [\"sim\"] }\n";
        for (name, table) in [("np", "dependencies"), ("async-std", "target.'cfg(unix)'.dependencies")] {
            let renamed = format!("{sim}[{table}]\n{name} = {{ package = \"netpoll\" }}\n");
            assert_eq!(found(&renamed), Some(name.replace('-', "_")), "{renamed}");
        }
        assert_eq!(found(sim).as_deref(), Some("netpoll"));
    }

    /// Regression: as in `development_dependency_is_not_preferred`, but for a program that uses the
    /// stand-in for async-std.
    #[test]
    fn stand_in_for_async_std_is_preferred_to_a_development_dependency() {
        let sim = "[dev-dependencies]\nnetpoll = { version = \"0.2\", features = [\"sim\"] }\n";
        let member = format!("{sim}[dependencies]\nasync-std = \"1\"\n");
        let name = |root: &str, member: &str, attribute| {
            let folder = Folder::new("patch", &[("Cargo.toml", root), ("a/Cargo.toml", member)]);
            find(&folder.0.join("a"), attribute)
        };
        for patch in [
            "[patch.crates-io]\nasync-std = { path = \"…\" }\n",
            "[patch.crates-io.async-std]\ngit = \"…\"\n",
            "[patch.crates-io]\nstand-in = { package = \"async-std\", git = \"…\" }\n",
        ] {
            let root = format!("[workspace]\nmembers = [\"a\"]\n{patch}");
            assert_eq!(name(&root, &member, Attribute::Main).as_deref(), Some("async_std"), "{patch}");
            // The stand-in has no simulation.
            assert_eq!(name(&root, &member, Attribute::Test).as_deref(), Some("netpoll"), "{patch}");
            assert_eq!(name("", &format!("{member}{patch}"), Attribute::Main).as_deref(), Some("async_std"), "{patch}");
        }
        let direct = format!("{sim}[dependencies]\nasync-std = {{ git = \"…\", features = [\"attributes\"] }}\n");
        assert_eq!(name("", &direct, Attribute::Main).as_deref(), Some("async_std"));
        // Without a patch, the dependency is async-std itself, and only the examples use netpoll.
        assert_eq!(name("[workspace]", &member, Attribute::Main).as_deref(), Some("netpoll"));
    }
}
