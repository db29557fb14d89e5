//! Parsing of the attributes' arguments, such as `workers = 4` and `crate = "path"`.

use std::num::IntErrorKind;

use proc_macro::{Delimiter, Literal, Span, TokenStream, TokenTree};

use crate::diagnostic::Error;
use crate::expand::Attribute;

/// The parsed arguments.
#[derive(Default)]
pub(crate) struct Arguments {
    /// The path of `netpoll`, if present.
    pub(crate) path: Option<TokenStream>,
    /// The number of worker threads, if present.
    pub(crate) workers: Option<Literal>,
    /// The span of `flavor`, if its value is `"current_thread"`. Tasks then run on the thread of
    /// `block_on`.
    pub(crate) single_threaded: Option<Span>,
    /// The span of the word `sim`, if present. The test then runs in a simulation.
    pub(crate) sim: Option<Span>,
    /// The span of the word `paused`, if present. The test then has a virtual clock and real
    /// sockets.
    pub(crate) paused: Option<Span>,
    /// The number of seeds with which the test runs, if present.
    pub(crate) seeds: Option<Literal>,
}

/// Returns the part of an error message that lists the arguments of `attribute`.
fn accepted(attribute: Attribute) -> &'static str {
    match attribute {
        Attribute::Main => {
            "the arguments accepted are `workers = N`, `flavor = \"current_thread\"` and `crate = \"path::to::netpoll\"`"
        }
        Attribute::Test => {
            "the arguments accepted are `sim`, `seeds = N`, `paused` and `crate = \"path::to::netpoll\"`"
        }
    }
}

/// Parses arguments of the form `name = value` or `name`, separated by commas.
pub(crate) fn parse(attribute: Attribute, arguments: TokenStream) -> Result<Arguments, Error> {
    let accepted = accepted(attribute);
    let mut tokens = arguments.into_iter().peekable();
    let mut parsed = Arguments::default();
    let mut seen = Vec::new();
    while let Some(name) = tokens.next() {
        let ident = match &name {
            TokenTree::Ident(ident) => ident.to_string(),
            other => return Err(Error::new(other.span(), format!("unexpected `{other}`: {accepted}"))),
        };
        // tokio's name has the same meaning.
        let ident = if ident == "worker_threads" { "workers".to_owned() } else { ident };
        let is_known = ["crate", "workers", "flavor"].contains(&ident.as_str())
            || (attribute == Attribute::Test && ["sim", "seeds", "paused"].contains(&ident.as_str()));
        if !is_known {
            return Err(Error::new(name.span(), format!("unknown argument `{ident}`: {accepted}")));
        }
        if ident == "workers" && attribute == Attribute::Test {
            let text = "tests share one runtime: set NETPOLL_THREADS for all of them";
            return Err(Error::new(name.span(), text.to_owned()));
        }
        if seen.contains(&ident) {
            return Err(Error::new(name.span(), format!("the argument `{ident}` is given twice")));
        }
        if ident == "sim" || ident == "paused" {
            let word = if ident == "sim" { &mut parsed.sim } else { &mut parsed.paused };
            *word = Some(name.span());
            match tokens.next() {
                None => break,
                Some(TokenTree::Punct(punct)) if punct.as_char() == ',' => {}
                Some(other) => return Err(Error::new(other.span(), format!("expected `,` after `{ident}`"))),
            }
            seen.push(ident);
            continue;
        }
        match tokens.next() {
            Some(TokenTree::Punct(punct)) if punct.as_char() == '=' => {}
            Some(other) => {
                return Err(Error::new(other.span(), format!("expected `=` after `{ident}`: {accepted}")));
            }
            None => return Err(Error::new(name.span(), format!("expected `=` after `{ident}`: {accepted}"))),
        }
        let value = tokens.next();
        match (ident.as_str(), value) {
            ("crate", Some(TokenTree::Literal(literal))) => parsed.path = Some(quoted_path(&literal, accepted)?),
            ("crate", Some(first)) => {
                let mut path = vec![first];
                while let Some(token) = tokens.next_if(|token| !is_comma(token)) {
                    path.push(token);
                }
                parsed.path = Some(plain_path(path, accepted)?);
            }
            ("crate", None) => {
                return Err(Error::new(name.span(), format!("expected a path after `=`: {accepted}")));
            }
            ("seeds", value) => parsed.seeds = Some(parse_seeds(name.span(), value)?),
            ("workers", value) => parsed.workers = Some(parse_workers(name.span(), value)?),
            // This is the default.
            (_, Some(value)) if value.to_string() == "\"multi_thread\"" => {}
            (_, Some(value)) if attribute == Attribute::Main && value.to_string() == "\"current_thread\"" => {
                parsed.single_threaded = Some(name.span());
            }
            _ => {
                let text = match attribute {
                    Attribute::Main => "expected `flavor = \"multi_thread\"` or `flavor = \"current_thread\"`",
                    Attribute::Test => "tests share one runtime: remove `flavor`",
                };
                return Err(Error::new(name.span(), text));
            }
        }
        seen.push(ident);
        match tokens.next() {
            None => break,
            Some(TokenTree::Punct(punct)) if punct.as_char() == ',' => {}
            Some(other) => return Err(Error::new(other.span(), "expected `,` between arguments")),
        }
    }
    if let (Some(flavor), Some(_)) = (parsed.single_threaded, &parsed.workers) {
        return Err(Error::new(flavor, "the flavor \"current_thread\" has one thread: remove `workers`"));
    }
    if let (None, Some(seeds)) = (parsed.sim, &parsed.seeds) {
        return Err(Error::new(seeds.span(), "`seeds` requires a simulation: `sim, seeds = N`"));
    }
    if let (Some(_), Some(paused)) = (parsed.sim, parsed.paused) {
        return Err(Error::new(paused, "the clock of a simulation is already virtual: remove `paused`"));
    }
    Ok(parsed)
}

/// Parses a number of seeds, from 1 to `u64::MAX`.
fn parse_seeds(name: Span, value: Option<TokenTree>) -> Result<Literal, Error> {
    parse_number(name, value, u64::MAX, "seeds", "seeds = 100")
}

/// Parses a number of threads, from 1 to `u32::MAX`. The runtime checks the maximum number of
/// workers when it starts.
fn parse_workers(name: Span, value: Option<TokenTree>) -> Result<Literal, Error> {
    parse_number(name, value, u32::MAX.into(), "threads", "workers = 4")
}

/// Parses a decimal number from 1 to `max`, without underscores and without a suffix. Also accepts
/// a number that a macro variable has put into a group without delimiters.
fn parse_number(name: Span, value: Option<TokenTree>, max: u64, what: &str, example: &str) -> Result<Literal, Error> {
    let span = value.as_ref().map_or(name, TokenTree::span);
    let expected = || Error::new(span, format!("expected a number of {what}, at least 1, such as `{example}`"));
    let Some(TokenTree::Literal(literal)) = value.map(ungrouped) else { return Err(expected()) };
    let text = literal.to_string();
    match text.parse::<u64>() {
        Ok(0) => Err(expected()),
        Ok(number) if number <= max => Ok(literal),
        Err(error) if *error.kind() != IntErrorKind::PosOverflow => Err(expected()),
        _ => Err(Error::new(span, format!("expected a number of {what}, at most {max}"))),
    }
}

/// Returns the token in a group without delimiters, or `token` itself if it is not such a group of
/// one token.
fn ungrouped(token: TokenTree) -> TokenTree {
    if let TokenTree::Group(group) = &token
        && group.delimiter() == Delimiter::None
    {
        let mut inner = group.stream().into_iter();
        if let (Some(only), None) = (inner.next(), inner.next()) {
            return ungrouped(only);
        }
    }
    token
}

fn is_comma(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',')
}

fn not_a_path(span: Span, accepted: &str) -> Error {
    Error::new(span, format!("expected a path such as \"netpoll\": {accepted}"))
}

/// Returns the tokens of an unquoted path: `np`, `::np`, or `$crate::np` in a macro. Also accepts a
/// path, quoted or not, that a macro variable has put into a group without delimiters.
fn plain_path(path: Vec<TokenTree>, accepted: &str) -> Result<TokenStream, Error> {
    if let [TokenTree::Group(group)] = &path[..]
        && group.delimiter() == Delimiter::None
    {
        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
        return match &inner[..] {
            [TokenTree::Literal(literal)] => quoted_path(literal, accepted),
            _ => plain_path(inner, accepted),
        };
    }
    let text: String = path.iter().map(TokenTree::to_string).collect();
    let span = path.first().map_or_else(Span::call_site, TokenTree::span);
    if is_path(&text) { Ok(path.into_iter().collect()) } else { Err(not_a_path(span, accepted)) }
}

/// Returns the tokens of a quoted path, with the span of the literal.
fn quoted_path(literal: &Literal, accepted: &str) -> Result<TokenStream, Error> {
    let text = unquote(literal).ok_or_else(|| not_a_path(literal.span(), accepted))?;
    // In a literal, `$crate` is not replaced.
    if !is_path(&text) || text.starts_with('$') {
        return Err(Error::new(literal.span(), format!("`{text}` is not a path: expected names separated by `::`")));
    }
    let tokens: TokenStream = text.parse().map_err(|_| not_a_path(literal.span(), accepted))?;
    let place = |mut token: TokenTree| {
        token.set_span(literal.span());
        token
    };
    Ok(tokens.into_iter().map(place).collect())
}

/// Returns the text between plain quotes. Escapes are not decoded, because a path needs none.
fn unquote(literal: &Literal) -> Option<String> {
    let text = literal.to_string();
    Some(text.strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

/// Returns whether `text` is a list of names separated by `::`, possibly with a leading `::` or
/// `$crate::`, or is `$crate`.
fn is_path(text: &str) -> bool {
    let is_name = |name: &str| {
        let name = name.strip_prefix("r#").unwrap_or(name);
        let mut chars = name.chars();
        name != "_"
            && chars.next().is_some_and(|first| first == '_' || first.is_alphabetic())
            && chars.all(|char| char == '_' || char.is_alphanumeric())
    };
    let names = text.strip_prefix("$crate::").or_else(|| text.strip_prefix("::")).unwrap_or(text);
    text == "$crate" || names.split("::").all(is_name)
}

#[cfg(test)]
mod tests {
    use super::is_path;

    #[test]
    fn only_names_separated_by_double_colons_are_paths() {
        for good in
            ["netpoll", "::netpoll", "crate", "crate::deps::np", "self::r#async", "_np2", "$crate", "$crate::np"]
        {
            assert!(is_path(good), "{good}");
        }
        for bad in [
            "",
            "::",
            "a:b",
            "a::",
            "::::a",
            "a b",
            "a-b",
            "2a",
            "_",
            "a::<b>",
            "a.b",
            " a",
            "$np",
            "a::$crate",
            "$crate::",
            "$crate::$crate",
            "::$crate",
        ] {
            assert!(!is_path(bad), "{bad}");
        }
    }
}
