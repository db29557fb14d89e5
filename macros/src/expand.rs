//! The expansion of the attributes: a function that contains the user's function and runs it to
//! completion.

use proc_macro::{Delimiter, Group, Literal, Span, TokenStream, TokenTree};

use crate::arguments::{self, Arguments};
use crate::diagnostic::Error;
use crate::item::{self, Function};
use crate::manifest;

/// The two attributes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attribute {
    Main,
    Test,
}

/// Expands `item`. If the item or an argument is invalid, returns the tokens of an error message
/// and, for `main`, an empty `main` function.
pub(crate) fn expand(attribute: Attribute, arguments: TokenStream, item: TokenStream) -> TokenStream {
    match try_expand(attribute, arguments, item) {
        Ok(tokens) => tokens,
        Err(error) => {
            let mut tokens = error.into_tokens();
            if attribute == Attribute::Main {
                // Avoids a second error about a missing `main`.
                tokens.extend(parse_ours("fn main() {}"));
            }
            tokens
        }
    }
}

fn try_expand(attribute: Attribute, arguments: TokenStream, item: TokenStream) -> Result<TokenStream, Error> {
    let whom = match attribute {
        Attribute::Main => "the main function",
        Attribute::Test => "a test function",
    };
    let Arguments { path, workers, single_threaded, sim, paused, seeds } = arguments::parse(attribute, arguments)?;
    let function = item::parse(item, whom, sim.is_some())?;
    if attribute == Attribute::Main && function.name.to_string() != "main" {
        return Err(Error::new(function.name.span(), "only the main function can be tagged with #[netpoll::main]"));
    }
    let path = path.unwrap_or_else(|| parse_ours(&format!("::{}", manifest::name_of_netpoll(attribute))));
    let has_test = function.attributes.iter().any(item::is_test);

    let mut tokens = TokenStream::new();
    if attribute == Attribute::Test && !has_test {
        tokens.extend(parse_ours("#[::core::prelude::v1::test]"));
    }
    tokens.extend(function.attributes.iter().cloned());
    tokens.extend(function.visibility.clone());
    if sim.is_some() {
        tokens.extend::<[TokenTree; 2]>([function.fn_token.clone().into(), function.name.clone().into()]);
        tokens.extend(parse_ours("()"));
        tokens.extend([TokenTree::from(simulated_body(&function, path, seeds))]);
        return Ok(tokens);
    }
    let setting = match (workers, single_threaded) {
        (Some(workers), _) => Some((".workers", TokenTree::from(workers).into())),
        (None, Some(_)) => Some((".single_threaded", parse_ours("true"))),
        (None, None) => None,
    };
    tokens.extend(signature(&function));
    tokens.extend([TokenTree::from(outer_body(&function, path, setting, paused.is_some()))]);
    Ok(tokens)
}

/// Returns `fn name(parameters) output`.
fn signature(function: &Function) -> TokenStream {
    let head: [TokenTree; 3] =
        [function.fn_token.clone().into(), function.name.clone().into(), function.parameters.clone().into()];
    head.into_iter().chain(function.output.clone()).collect()
}

/// Returns `{ async fn name() output { body } path::task::block_on(name()) }`. With a setting of
/// the runtime, a statement such as `path::rt::Builder::new().workers(N).start()…;` precedes the
/// call. With `paused`, the call is `path::sim::paused(name)`.
fn outer_body(function: &Function, path: TokenStream, setting: Option<(&str, TokenStream)>, paused: bool) -> Group {
    let mut tokens = TokenStream::from(TokenTree::from(function.async_token.clone()));
    tokens.extend(signature(function));
    tokens.extend([TokenTree::from(function.body.clone())]);

    let parenthesised = |inner: TokenStream| TokenTree::from(Group::new(Delimiter::Parenthesis, inner));
    if let Some((method, argument)) = setting {
        tokens.extend(path.clone());
        tokens.extend(parse_ours("::rt::Builder::new()"));
        tokens.extend(parse_ours(method));
        tokens.extend([parenthesised(argument)]);
        tokens.extend(parse_ours(".start().expect(\"the runtime starts\");"));
    }
    tokens.extend(path);
    tokens.extend(parse_ours(if paused { "::sim::paused" } else { "::task::block_on" }));
    let mut call = TokenStream::from(TokenTree::from(function.name.clone()));
    if !paused {
        call.extend([parenthesised(TokenStream::new())]);
    }
    tokens.extend([parenthesised(call)]);

    let mut body = Group::new(Delimiter::Brace, tokens);
    // The compiler reports errors about the whole function, such as an invalid return type of
    // `main`, at the user's braces.
    body.set_span(function.body.span());
    body
}

/// Returns `{ async fn name(sim: Sim) output { body } call }`, where the call is
/// `path::sim::test(concat!(module_path!(), "::name"), seeds, name)`. If the user's function has no
/// parameter, the last argument is `|_| name()`.
fn simulated_body(function: &Function, path: TokenStream, seeds: Option<Literal>) -> Group {
    let mut tokens = TokenStream::from(TokenTree::from(function.async_token.clone()));
    tokens.extend(signature(function));
    tokens.extend([TokenTree::from(function.body.clone())]);
    tokens.extend(path);
    tokens.extend(parse_ours("::sim::test"));
    let name = function.name.to_string();
    let name = name.strip_prefix("r#").unwrap_or(&name);
    let mut arguments = parse_ours(&format!("::core::concat!(::core::module_path!(), \"::{name}\"),"));
    arguments.extend([TokenTree::from(seeds.unwrap_or_else(|| Literal::u64_unsuffixed(1)))]);
    let takes_none = function.parameters.stream().is_empty();
    arguments.extend(parse_ours(if takes_none { ", |_|" } else { "," }));
    arguments.extend([TokenTree::from(function.name.clone())]);
    if takes_none {
        arguments.extend(parse_ours("()"));
    }
    tokens.extend([TokenTree::from(Group::new(Delimiter::Parenthesis, arguments))]);
    let mut body = Group::new(Delimiter::Brace, tokens);
    body.set_span(function.body.span());
    body
}

/// Parses code of this crate and gives it this crate's spans. The edition of this crate, not that
/// of the user's crate, then applies to the code, and most lints ignore it.
fn parse_ours(code: &str) -> TokenStream {
    let tokens: TokenStream = code.parse().unwrap_or_else(|_| unreachable!("this crate's own code: {code}"));
    place(tokens)
}

/// Gives all tokens this crate's spans.
fn place(tokens: TokenStream) -> TokenStream {
    let place = |token| match token {
        TokenTree::Group(group) => {
            let mut group = Group::new(group.delimiter(), place(group.stream()));
            group.set_span(Span::mixed_site());
            TokenTree::from(group)
        }
        mut token => {
            token.set_span(Span::mixed_site());
            token
        }
    };
    tokens.into_iter().map(place).collect()
}
