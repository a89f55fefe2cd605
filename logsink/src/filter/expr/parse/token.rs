//! Characters → quoted texts, names, keywords and operators.

use super::{Parser, SyntaxError};

impl<'t> Parser<'t> {
    /// A quoted text, without its quotes. Leaves the position right behind it when an operator, else after white space.
    pub(super) fn quoted(&mut self) -> Result<String, SyntaxError> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.text[start + 1..].char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + 1 + at + 1;
                    return Ok(text);
                }
                '\\' => match chars.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                    Some((_, escaped)) => text.push(escaped),
                    None => text.push('\\'),
                },
                _ => text.push(c),
            }
        }
        Err(self.error(start, "this quote is never closed").hint("write \" after the text, and \\\" for a quote in it"))
    }

    pub(super) fn name(&mut self) -> &'t str {
        let name = self.run(is_name);
        self.skip_space();
        name
    }

    pub(super) fn run(&mut self, belongs: fn(char) -> bool) -> &'t str {
        let rest = &self.text[self.at..];
        let run = &rest[..rest.find(|c| !belongs(c)).unwrap_or(rest.len())];
        self.at += run.len();
        run
    }

    /// The next character; moves over white space before it.
    pub(super) fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.text[self.at..].chars().next()
    }

    pub(super) fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.skip_space();
    }

    pub(super) fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    pub(super) fn sees_operator(&mut self) -> bool {
        self.peek().is_some_and(is_operator)
    }

    /// Whether this keyword is next, and not a field of that name.
    pub(super) fn sees_word(&mut self, word: &str) -> bool {
        self.skip_space();
        let rest = &self.text[self.at..];
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        name.eq_ignore_ascii_case(word)
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let sees = self.sees_word(word);
        if sees {
            self.advance(word.len());
        }
        sees
    }
}

pub(super) fn is_operator(c: char) -> bool {
    matches!(c, '=' | '!' | '<' | '>' | '~')
}

/// What other languages write between a field and a value.
pub(super) fn is_foreign_operator(c: char) -> bool {
    matches!(c, ':' | '=' | '&' | '|' | '*' | '^' | '%' | '+')
}

pub(in crate::filter::expr) fn is_name_start(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '@' | '$')
}

pub(in crate::filter::expr) fn is_name(c: char) -> bool {
    is_name_start(c) || matches!(c, '.' | '-' | '/' | '#')
}

/// Whether a value may hold it without quotes.
pub(in crate::filter::expr) fn is_bare(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '(' | ')' | '=' | '<' | '>' | '!' | '~')
}
