//! The attribute's arguments: nothing, or `crate = "path"`.

use proc_macro::{Literal, Span, TokenStream, TokenTree};

use crate::diagnostic::Error;

const ACCEPTED: &str = "the only argument accepted is `crate = \"path::to::netpoll\"`";

/// The path of `netpoll` that the arguments name, if they do.
pub(crate) fn parse(arguments: TokenStream) -> Result<Option<TokenStream>, Error> {
    let mut tokens = arguments.into_iter();
    let mut path = None;
    while let Some(name) = tokens.next() {
        match &name {
            TokenTree::Ident(ident) if ident.to_string() == "crate" => {}
            TokenTree::Ident(ident) => {
                return Err(Error::new(ident.span(), format!("unknown argument `{ident}`: {ACCEPTED}")));
            }
            other => return Err(Error::new(other.span(), format!("unexpected `{other}`: {ACCEPTED}"))),
        }
        if path.is_some() {
            return Err(Error::new(name.span(), "the argument `crate` is given twice"));
        }
        match tokens.next() {
            Some(TokenTree::Punct(punct)) if punct.as_char() == '=' => {}
            Some(other) => return Err(Error::new(other.span(), format!("expected `=` after `crate`: {ACCEPTED}"))),
            None => return Err(Error::new(name.span(), format!("expected `=` after `crate`: {ACCEPTED}"))),
        }
        path = Some(match tokens.next() {
            Some(value) => parse_path(&value)?,
            None => return Err(Error::new(name.span(), format!("expected a path in quotes after `=`: {ACCEPTED}"))),
        });
        match tokens.next() {
            None => break,
            Some(TokenTree::Punct(punct)) if punct.as_char() == ',' => {}
            Some(other) => return Err(Error::new(other.span(), "expected `,` between arguments")),
        }
    }
    Ok(path)
}

/// The tokens of a path that stands in quotes, each at the place of the quotes.
fn parse_path(value: &TokenTree) -> Result<TokenStream, Error> {
    let not_a_path =
        |span: Span| Error::new(span, format!("expected a path in quotes, such as \"netpoll\": {ACCEPTED}"));
    let literal = match value {
        TokenTree::Literal(literal) => literal,
        // What a `$path:literal` of macro_rules comes as.
        TokenTree::Group(group) => {
            let mut inner = group.stream().into_iter();
            return match (inner.next(), inner.next()) {
                (Some(value), None) => parse_path(&value),
                _ => Err(not_a_path(group.span())),
            };
        }
        other => return Err(not_a_path(other.span())),
    };
    let text = unquote(literal).ok_or_else(|| not_a_path(literal.span()))?;
    if !is_path(&text) {
        return Err(Error::new(
            literal.span(),
            format!("`{text}` is not a path: segments are names, with `::` between"),
        ));
    }
    let tokens: TokenStream = text.parse().map_err(|_| not_a_path(literal.span()))?;
    let place = |mut token: TokenTree| {
        token.set_span(literal.span());
        token
    };
    Ok(tokens.into_iter().map(place).collect())
}

/// What is between plain quotes. A path needs no escapes.
fn unquote(literal: &Literal) -> Option<String> {
    let text = literal.to_string();
    Some(text.strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

/// Whether it is `::`-separated names, with perhaps a `::` in front.
fn is_path(text: &str) -> bool {
    let is_name = |name: &str| {
        let name = name.strip_prefix("r#").unwrap_or(name);
        let mut chars = name.chars();
        name != "_"
            && chars.next().is_some_and(|first| first == '_' || first.is_alphabetic())
            && chars.all(|char| char == '_' || char.is_alphanumeric())
    };
    text.strip_prefix("::").unwrap_or(text).split("::").all(is_name)
}

#[cfg(test)]
mod tests {
    use super::is_path;

    #[test]
    fn paths() {
        for good in ["netpoll", "::netpoll", "crate", "crate::deps::np", "self::r#async", "_np2"] {
            assert!(is_path(good), "{good}");
        }
        for bad in ["", "::", "a:b", "a::", "::::a", "a b", "a-b", "2a", "_", "a::<b>", "a.b", " a"] {
            assert!(!is_path(bad), "{bad}");
        }
    }
}
