//! Parses command-line arguments of the forms `--name value` and `--flag`.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

/// The command-line arguments of a program. The program takes them one by one, and then calls
/// [`finish`](Arguments::finish), which returns an error if some remain.
#[derive(Debug)]
pub struct Arguments {
    values: HashMap<String, String>,
    flags: Vec<String>,
}

impl Arguments {
    /// Reads the process's arguments. The names in `flags` are flags. Any other name is followed by
    /// its value. If a name is given several times, its last value counts.
    ///
    /// # Errors
    /// Returns an error if a word in the place of a name does not begin with `--`, or if a value is
    /// missing.
    ///
    /// # Panics
    /// Panics if an argument is not valid UTF-8.
    pub fn from_env(flags: &[&str]) -> Result<Arguments, String> {
        Arguments::parse(std::env::args().skip(1), flags)
    }

    fn parse(mut words: impl Iterator<Item = String>, flags: &[&str]) -> Result<Arguments, String> {
        let mut parsed = Arguments { values: HashMap::new(), flags: Vec::new() };
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("`{word}` is not an option"))?;
            if flags.contains(&name) {
                parsed.flags.push(name.to_owned());
            } else {
                let value = words.next().ok_or_else(|| format!("--{name} needs a value"))?;
                parsed.values.insert(name.to_owned(), value);
            }
        }
        Ok(parsed)
    }

    /// Takes the flag `name`. Returns whether it was given.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.flags.len();
        self.flags.retain(|flag| flag != name);
        self.flags.len() != before
    }

    /// Takes the value of `name`, if it was given.
    ///
    /// # Errors
    /// Returns an error if the value does not parse.
    pub fn optional<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String>
    where
        T::Err: Display,
    {
        let Some(text) = self.values.remove(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error| format!("--{name} {text}: {error}"))
    }

    /// Takes the value of `name`. Returns `default` if it was not given.
    ///
    /// # Errors
    /// Returns an error if the value does not parse.
    pub fn value<T: FromStr>(&mut self, name: &str, default: T) -> Result<T, String>
    where
        T::Err: Display,
    {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    /// Takes the value of `name`, which is a comma-separated list. Returns an empty list if it was
    /// not given.
    ///
    /// # Errors
    /// Returns an error if an item does not parse.
    pub fn list<T: FromStr>(&mut self, name: &str) -> Result<Vec<T>, String>
    where
        T::Err: Display,
    {
        let Some(text) = self.values.remove(name) else { return Ok(Vec::new()) };
        text.split(',').map(|item| item.parse().map_err(|error| format!("--{name} {item}: {error}"))).collect()
    }

    /// Returns the remaining arguments as words of a command line, in any order.
    #[must_use]
    pub fn into_words(self) -> Vec<String> {
        let values = self.values.into_iter().flat_map(|(name, value)| [format!("--{name}"), value]);
        values.chain(self.flags.into_iter().map(|flag| format!("--{flag}"))).collect()
    }

    /// Checks that no arguments remain.
    ///
    /// # Errors
    /// Returns an error that names the options that remain.
    pub fn finish(self) -> Result<(), String> {
        let mut rest: Vec<String> = self.values.into_keys().chain(self.flags).collect();
        rest.sort();
        if rest.is_empty() { Ok(()) } else { Err(format!("unknown options: {}", rest.join(", "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::Arguments;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned), &["quick"])
    }

    #[test]
    fn options_are_taken_once_and_unknown_ones_are_named() {
        let mut arguments = parse("--workers 2 --quick --only bare,tokio --odd 1").unwrap();
        assert_eq!(arguments.value("workers", 1), Ok(2));
        assert!(arguments.flag("quick"));
        assert!(!arguments.flag("quick"));
        assert_eq!(arguments.list::<String>("only").unwrap(), ["bare", "tokio"]);
        assert_eq!(arguments.finish().unwrap_err(), "unknown options: odd");
    }

    #[test]
    fn missing_values_stray_words_and_wrong_values_are_errors() {
        assert!(parse("--workers").is_err());
        assert!(parse("stray").is_err());
        assert!(parse("--workers x").unwrap().value("workers", 1).is_err());
    }
}
