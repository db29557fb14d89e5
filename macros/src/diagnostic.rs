//! [`Error`]: an error message with its location, which expands to `compile_error!`.

use proc_macro::{Delimiter, Group, Ident, Literal, Punct, Spacing, Span, TokenStream, TokenTree};

/// An error message for the tokens from `start` to `end`.
pub(crate) struct Error {
    start: Span,
    end: Span,
    message: String,
}

impl Error {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Error {
        Error { start: span, end: span, message: message.into() }
    }

    /// Creates an error that points at all of `tokens`, or at `fallback` if there are none.
    pub(crate) fn over(tokens: &TokenStream, fallback: Span, message: impl Into<String>) -> Error {
        let mut spans = tokens.clone().into_iter().map(|token| token.span());
        let start = spans.next().unwrap_or(fallback);
        let end = spans.last().unwrap_or(start);
        Error { start, end, message: message.into() }
    }

    /// Returns `::core::compile_error! { "message" }`. The compiler reports the message at the
    /// tokens from `start` to `end`, because the first and the last token of the expansion have
    /// these spans.
    pub(crate) fn into_tokens(self) -> TokenStream {
        let mut message = Literal::string(&self.message);
        message.set_span(self.end);
        let mut body = Group::new(Delimiter::Brace, TokenTree::from(message).into());
        body.set_span(self.end);
        let punct = |char, spacing| {
            let mut punct = Punct::new(char, spacing);
            punct.set_span(self.start);
            TokenTree::from(punct)
        };
        let ident = |name| TokenTree::from(Ident::new(name, self.start));
        [
            punct(':', Spacing::Joint),
            punct(':', Spacing::Alone),
            ident("core"),
            punct(':', Spacing::Joint),
            punct(':', Spacing::Alone),
            ident("compile_error"),
            punct('!', Spacing::Alone),
            body.into(),
        ]
        .into_iter()
        .collect()
    }
}
