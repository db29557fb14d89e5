//! Parsing of a function, to the extent that the attributes need it.

use proc_macro::{Delimiter, Group, Ident, Span, TokenStream, TokenTree};

use crate::diagnostic::Error;

/// A parsed function: `attributes visibility async fn name(parameters) output { body }`.
pub(crate) struct Function {
    /// The attributes `#[…]`, unchanged.
    pub(crate) attributes: Vec<TokenStream>,
    pub(crate) visibility: TokenStream,
    pub(crate) async_token: Ident,
    pub(crate) fn_token: Ident,
    pub(crate) name: Ident,
    /// The parentheses with the parameters. They are empty unless the function runs in a
    /// simulation.
    pub(crate) parameters: Group,
    /// `-> Type`, or nothing.
    pub(crate) output: TokenStream,
    pub(crate) body: Group,
}

const NOT_A_FUNCTION: &str = "this attribute belongs on an `async fn`";

/// Tokens with one token of lookahead.
type Tokens = std::iter::Peekable<proc_macro::token_stream::IntoIter>;

fn is_ident(token: Option<&TokenTree>, name: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident.to_string() == name)
}

fn is_punct(token: Option<&TokenTree>, char: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == char)
}

/// Parses `item`. `whom` names the kind of function in messages, such as "the main function".
/// `takes_sim` permits parameters.
pub(crate) fn parse(item: TokenStream, whom: &str, takes_sim: bool) -> Result<Function, Error> {
    let all = item.clone();
    let mut tokens = item.into_iter().peekable();
    let attributes = parse_attributes(&mut tokens);
    let visibility = parse_visibility(&mut tokens);
    let (async_token, fn_token) = parse_qualifiers(&mut tokens, &all, whom)?;
    let name = match tokens.next() {
        Some(TokenTree::Ident(name)) => name,
        _ => return Err(Error::new(fn_token.span(), NOT_A_FUNCTION)),
    };
    if let Some(open) = tokens.next_if(|token| is_punct(Some(token), '<')) {
        return Err(refuse_generics(open, &mut tokens, whom));
    }
    let parameters = match tokens.next() {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis => group,
        _ => return Err(Error::new(name.span(), NOT_A_FUNCTION)),
    };
    if !takes_sim && !parameters.stream().is_empty() {
        let mut message = format!("{whom} cannot take arguments");
        if parameters.stream().into_iter().any(|token| is_ident(Some(&token), "Sim")) {
            message.push_str(": for a `Sim`, write `#[netpoll::test(sim)]`");
        }
        return Err(Error::over(&parameters.stream(), parameters.span(), message));
    }
    let (output, body) = parse_output_and_body(&mut tokens, &name, whom)?;
    Ok(Function { attributes, visibility, async_token, fn_token, name, parameters, output, body })
}

fn parse_attributes(tokens: &mut Tokens) -> Vec<TokenStream> {
    let mut attributes = Vec::new();
    while let Some(hash) = tokens.next_if(|token| is_punct(Some(token), '#')) {
        attributes.push([hash].into_iter().chain(tokens.next()).collect());
    }
    attributes
}

/// Parses `pub`, `pub(…)`, a macro's `$vis` (a group without delimiters), or nothing.
fn parse_visibility(tokens: &mut Tokens) -> TokenStream {
    let invisible =
        |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::None);
    if let Some(group) = tokens.next_if(invisible) {
        return group.into();
    }
    let Some(public) = tokens.next_if(|token| is_ident(Some(token), "pub")) else { return TokenStream::new() };
    let restriction =
        |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis);
    [public].into_iter().chain(tokens.next_if(restriction)).collect()
}

/// Parses `async fn`. If there is a qualifier `unsafe`, `const`, `extern` or `safe`, the error
/// names the qualifier.
fn parse_qualifiers(tokens: &mut Tokens, all: &TokenStream, whom: &str) -> Result<(Ident, Ident), Error> {
    let mut async_token = None;
    let mut refused = None;
    loop {
        match tokens.next() {
            Some(TokenTree::Ident(ident)) => match ident.to_string().as_str() {
                "async" => async_token = Some(ident),
                "unsafe" | "const" | "extern" | "safe" => {
                    let message = format!("{whom} cannot be `{ident}`");
                    refused.get_or_insert_with(|| Error::new(ident.span(), message));
                }
                "fn" => {
                    return match (refused, async_token) {
                        (Some(refused), _) => Err(refused),
                        (None, Some(async_token)) => Ok((async_token, ident)),
                        (None, None) => {
                            let message = "the `async` keyword is missing from the function declaration";
                            Err(Error::new(ident.span(), message))
                        }
                    };
                }
                _ => return Err(Error::over(all, ident.span(), NOT_A_FUNCTION)),
            },
            // The ABI of `extern "C"`.
            Some(TokenTree::Literal(_)) if refused.is_some() => {}
            _ => return Err(Error::over(all, Span::call_site(), NOT_A_FUNCTION)),
        }
    }
}

/// Returns an error that points at all of `<…>`, whose first token `open` was already taken. The
/// `>` of an arrow (`F: Fn() -> T`) does not close the list.
fn refuse_generics(open: TokenTree, tokens: &mut Tokens, whom: &str) -> Error {
    let fallback = open.span();
    let mut generics = vec![open];
    let mut depth = 1;
    let mut arrow = false;
    while depth > 0 {
        let Some(token) = tokens.next() else { break };
        if is_punct(Some(&token), '<') {
            depth += 1;
        } else if is_punct(Some(&token), '>') && !arrow {
            depth -= 1;
        }
        arrow = is_punct(Some(&token), '-');
        generics.push(token);
    }
    Error::over(&generics.into_iter().collect(), fallback, format!("{whom} cannot have generic parameters"))
}

/// Parses the tokens after the parameters. The last token is the body, and the tokens before it are
/// the return type.
fn parse_output_and_body(tokens: &mut Tokens, name: &Ident, whom: &str) -> Result<(TokenStream, Group), Error> {
    let mut rest: Vec<TokenTree> = tokens.collect();
    let body = rest.pop().and_then(as_body);
    // A function in a trait or an extern block may end with `;`.
    let Some(body) = body else { return Err(Error::new(name.span(), format!("{whom} must have a body"))) };
    if let Some(at) = rest.iter().position(|token| is_ident(Some(token), "where")) {
        let clause = rest.split_off(at).into_iter().collect();
        return Err(Error::over(&clause, name.span(), format!("{whom} cannot have a `where` clause")));
    }
    Ok((rest.into_iter().collect(), body))
}

/// Returns the group in braces, even if a macro's `$body:block` has put it into a group without
/// delimiters.
fn as_body(token: TokenTree) -> Option<Group> {
    match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group),
        TokenTree::Group(group) if group.delimiter() == Delimiter::None => {
            let mut inner = group.stream().into_iter();
            let only = inner.next()?;
            if inner.next().is_some() { None } else { as_body(only) }
        }
        _ => None,
    }
}

/// Returns whether an attribute is `#[test]`, with or without its full path.
pub(crate) fn is_test(attribute: &TokenStream) -> bool {
    let Some(TokenTree::Group(group)) = attribute.clone().into_iter().nth(1) else { return false };
    let path: String = group.stream().into_iter().map(|token| token.to_string()).collect();
    let path = path.strip_prefix("::").unwrap_or(&path);
    matches!(path, "test" | "core::prelude::v1::test" | "std::prelude::v1::test")
}
