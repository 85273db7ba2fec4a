//! Rust sources as the checks see them: code without comments and literals, comments without code, and which
//! lines are tests.
//!
//! Invariant: both views have exactly the lines of the file, so that a line number means the same everywhere.
//! This is a lexer of what the checks need, not a parser: it knows comments, literals and braces.

/// One file, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Relative to the top of the repository.
    pub(crate) path: String,
    /// The text as it is.
    pub(crate) text: String,
    /// Code alone, by line: comments and the insides of literals are blanks.
    pub(crate) code: Vec<String>,
    /// Comments alone, by line.
    pub(crate) comments: Vec<String>,
    /// For each line, whether it is compiled for tests alone.
    pub(crate) test: Vec<bool>,
}

impl Source {
    /// Takes a file apart. `all_test`: the whole file is tests, as below `tests/`.
    pub(crate) fn new(path: &str, text: &str, all_test: bool) -> Self {
        let (code, comments) = split(text);
        let code: Vec<String> = code.lines().map(str::to_owned).collect();
        let comments = comments.lines().map(str::to_owned).collect();
        let mut test = vec![all_test; code.len()];
        if !all_test {
            for (first, last) in test_items(&code) {
                test[first..=last].fill(true);
            }
        }
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            comments,
            test,
        }
    }

    /// The lines of code that are not tests, with their numbers counted from one.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().zip(&self.test).enumerate();
        lines
            .filter(|(_, (_, test))| !**test)
            .map(|(at, (line, _))| (at + 1, line.as_str()))
    }

    /// The crate's folder: `core` for `crates/core/src/path.rs`, `xtask` for `xtask/src/main.rs`.
    pub(crate) fn package(&self) -> &str {
        let path = self.path.strip_prefix("crates/").unwrap_or(&self.path);
        path.split('/').next().unwrap_or(path)
    }

    /// The names of modules that are declared as `#[cfg(test)] mod name;`.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (at, line) in self.code.iter().enumerate() {
            let name = line
                .trim()
                .strip_prefix("mod ")
                .and_then(|l| l.strip_suffix(';'));
            if let Some(name) = name
                && self.test[at]
            {
                found.push(name.to_owned());
            }
        }
        found
    }
}

/// Whether `word` stands in `line` with no identifier character beside it.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let ident = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(ident)
            && !line[at + word.len()..].chars().next().is_some_and(ident)
    })
}

/// The items marked `#[cfg(test)]` (or an `all`, or a feature, of which that is a part), as first and last line.
fn test_items(code: &[String]) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let line = code[at].trim();
        let marked = line.starts_with("#[cfg(test)]")
            || line.starts_with("#[cfg(all(test")
            || line.starts_with("#[cfg(any(test");
        if marked {
            let last = item_end(code, at);
            items.push((at, last));
            at = last;
        }
        at += 1;
    }
    items
}

/// The last line of the item whose attributes start at `first`: its closing brace, or its semicolon.
pub(crate) fn item_end(code: &[String], first: usize) -> usize {
    let (mut depth, mut brackets) = (0_i32, 0_i32);
    for (at, line) in code.iter().enumerate().skip(first) {
        for c in line.chars() {
            match c {
                '{' => depth += 1,
                '}' => {
                    depth -= 1;
                    if depth <= 0 && brackets == 0 {
                        return at;
                    }
                }
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets -= 1,
                ';' if depth == 0 && brackets == 0 => return at,
                _ => {}
            }
        }
    }
    code.len().saturating_sub(1)
}

/// What the lexer is inside of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Code,
    LineComment,
    BlockComment(u32),
    Text { hashes: usize, raw: bool },
}

/// The text as code with everything else blanked, and as comments with everything else blanked.
fn split(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::new(), String::new());
    let mut inside = Inside::Code;
    let mut at = 0;
    while at < chars.len() {
        let token = token(inside, &chars, at);
        for &c in &chars[at..chars.len().min(at + token.length)] {
            let blank = if c == '\n' { '\n' } else { ' ' };
            code.push(if token.shown == Shown::Code { c } else { blank });
            comments.push(if token.shown == Shown::Comment {
                c
            } else {
                blank
            });
        }
        at += token.length;
        inside = token.inside;
    }
    (code, comments)
}

/// In which view characters are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Code,
    Comment,
    Nowhere,
}

/// Some characters that belong together, and what the lexer is inside of after them.
struct Token {
    inside: Inside,
    shown: Shown,
    length: usize,
}

/// The token that starts at `at`.
fn token(inside: Inside, chars: &[char], at: usize) -> Token {
    let c = chars[at];
    let next = chars.get(at + 1).copied().unwrap_or('\n');
    let token = |inside, shown, length| Token {
        inside,
        shown,
        length,
    };
    match inside {
        Inside::Code if c == '/' && next == '/' => token(Inside::LineComment, Shown::Comment, 1),
        Inside::Code if c == '/' && next == '*' => {
            token(Inside::BlockComment(1), Shown::Comment, 2)
        }
        Inside::Code if c == '\'' => match char_literal(chars, at) {
            1 => token(inside, Shown::Code, 1),
            length => token(inside, Shown::Nowhere, length),
        },
        Inside::Code => match opens_text(chars, at) {
            Some((hashes, raw, length)) => token(Inside::Text { hashes, raw }, Shown::Code, length),
            None => token(inside, Shown::Code, 1),
        },
        Inside::LineComment if c == '\n' => token(Inside::Code, Shown::Comment, 1),
        Inside::LineComment => token(inside, Shown::Comment, 1),
        Inside::BlockComment(depth) => match (c, next) {
            ('*', '/') if depth == 1 => token(Inside::Code, Shown::Comment, 2),
            ('*', '/') => token(Inside::BlockComment(depth - 1), Shown::Comment, 2),
            ('/', '*') => token(Inside::BlockComment(depth + 1), Shown::Comment, 2),
            _ => token(inside, Shown::Comment, 1),
        },
        Inside::Text { raw: false, .. } if c == '\\' => token(inside, Shown::Nowhere, 2),
        Inside::Text { hashes, .. } => {
            let closes = c == '"' && (0..hashes).all(|i| chars.get(at + 1 + i) == Some(&'#'));
            if closes {
                token(Inside::Code, Shown::Code, 1 + hashes)
            } else {
                token(inside, Shown::Nowhere, 1)
            }
        }
    }
}

/// If a text literal starts here: how many hashes it has, whether it is raw, and the length of its opening.
fn opens_text(chars: &[char], at: usize) -> Option<(usize, bool, usize)> {
    if chars[at] == '"' {
        return Some((0, false, 1));
    }
    let before = at.checked_sub(1).map(|i| chars[i]);
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let mut end = at;
    if matches!(chars[end], 'b' | 'c') {
        end += 1;
    }
    if chars.get(end) != Some(&'r') {
        return None;
    }
    end += 1;
    let hashes = chars[end..].iter().take_while(|c| **c == '#').count();
    (chars.get(end + hashes) == Some(&'"')).then_some((hashes, true, end + hashes + 1 - at))
}

/// The length of the character literal that starts here; one when it is a lifetime.
fn char_literal(chars: &[char], at: usize) -> usize {
    if chars.get(at + 1) == Some(&'\\') {
        // Past the escaped character, so that '\'' ends where it should.
        let rest = chars.get(at + 3..).unwrap_or_default();
        return rest.iter().position(|c| *c == '\'').map_or(1, |i| i + 4);
    }
    if chars.get(at + 2) == Some(&'\'') {
        3
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new("x.rs", text, false).code.join("\n")
    }

    #[test]
    fn comments_and_texts_are_not_code() {
        let words = code("a // std::fs\nb");
        assert_eq!(words.split_whitespace().collect::<Vec<_>>(), ["a", "b"]);
        assert!(!code("let x = \"std::fs // {\"; y").contains("std::fs"));
        assert!(code("let x = \"a // b\"; kept").contains("kept"));
        assert!(!code("/* a /* b */ HashMap */ c").contains("HashMap"));
        assert!(!code("r#\"a \" HashMap\"# ;").contains("HashMap"));
    }

    #[test]
    fn quotes_in_character_literals_open_nothing() {
        assert!(code("match c { '\"' => HashMap, '\\'' => 1 }").contains("HashMap"));
        assert!(code("fn f<'a>(x: &'a str) { HashMap }").contains("HashMap"));
        assert!(code("let b = b'\"'; HashMap").contains("HashMap"));
        assert!(!code("'{'").contains('{'));
    }

    #[test]
    fn a_test_module_is_not_shipped() {
        let text =
            "a();\n#[cfg(test)]\n#[allow(x, reason = \"y\")]\nmod tests {\n  b();\n}\nc();\n";
        let source = Source::new("crates/core/src/x.rs", text, false);
        let shipped: Vec<_> = source.shipped().map(|(n, l)| (n, l.trim())).collect();
        assert_eq!(shipped, [(1, "a();"), (7, "c();")]);
        assert_eq!(source.package(), "core");
    }

    #[test]
    fn a_test_module_in_its_own_file_is_found() {
        let source = Source::new("x.rs", "#[cfg(test)]\nmod suite;\nmod real;\n", false);
        assert_eq!(source.test_modules(), ["suite"]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("a TODO: b", "TODO"));
        assert!(!has_word("TODOS", "TODO"));
    }
}
