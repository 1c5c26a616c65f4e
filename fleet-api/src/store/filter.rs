//! The one filter grammar of lists and bulk commands.
//!
//! ```text
//! filter := all ("or" all)*
//! all    := one ("and" one)*
//! one    := "not" one | "(" filter ")" | field op value
//! op     := ":" equal | "~" contains, case does not matter | "<" | "<=" | ">" | ">="
//! value  := letters, digits and -_.@/+ | "text in quotes, with \" and \\"
//! ```
//!
//! What a field means in SQL stands in a table beside the list; what a caller wrote only ever becomes
//! a bound value.

use std::fmt;

use longhaul_protocol::value::UnixMillis;

use super::tx::{Piece, plain};

/// Longest filter, in characters.
pub const MAX_CHARS: usize = 1000;
/// Conditions in one filter at the most.
pub const MAX_TERMS: usize = 32;
/// Deepest nesting.
pub const MAX_DEPTH: usize = 8;

/// What a field holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holds {
    /// A text: `:` and `~`.
    Text,
    /// One of these words: `:`.
    Word(&'static [&'static str]),
    /// `true` or `false`: `:`.
    Truth,
    /// A whole number: `:` and comparisons.
    Number,
    /// Milliseconds, or an age as `90s`, `15m`, `6h` or `7d` before now: comparisons.
    Time,
}

/// A field that can be asked for.
#[derive(Clone, Copy, Debug)]
pub struct FilterField {
    /// Its name.
    pub name: &'static str,
    /// What it is in SQL.
    pub sql: &'static str,
    /// What it holds.
    pub holds: Holds,
}

impl fmt::Display for FilterField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holds = match self.holds {
            Holds::Text => "text".to_owned(),
            Holds::Word(words) => words.join(" | "),
            Holds::Truth => "true | false".to_owned(),
            Holds::Number => "number".to_owned(),
            Holds::Time => "time: milliseconds, or an age such as 6h".to_owned(),
        };
        write!(f, "`{}` ({holds})", self.name)
    }
}

/// A filter that does not fit, and where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text}, at character {position}")]
pub struct FilterError {
    /// In characters from 0.
    pub position: usize,
    /// What is wrong there.
    pub text: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Op {
    Equal,
    Contains,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Number(i64),
    Truth(bool),
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Term {
        sql: &'static str,
        op: Op,
        value: Value,
    },
}

/// A filter that was checked against the fields of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(Option<Node>);

impl Filter {
    /// Reads `text`; an empty one holds for every row.
    ///
    /// # Errors
    ///
    /// [`FilterError`] says what is wrong and where.
    pub fn parse(text: &str, fields: &[FilterField], now: UnixMillis) -> Result<Self, FilterError> {
        let chars: Vec<char> = text.chars().collect();
        if chars.len() > MAX_CHARS {
            return Err(FilterError {
                position: MAX_CHARS,
                text: format!("a filter has at most {MAX_CHARS} characters"),
            });
        }
        let mut parser = Parser {
            chars: &chars,
            at: 0,
            terms: 0,
            fields,
            now,
        };
        parser.skip();
        if parser.at == chars.len() {
            return Ok(Self(None));
        }
        let node = parser.any(0)?;
        if parser.at < chars.len() {
            return Err(parser.wrong("expected `and`, `or` or the end"));
        }
        Ok(Self(Some(node)))
    }

    /// Whether it holds for every row.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Adds ` AND (..)` to a statement.
    pub(super) fn push(&self, statement: &mut Vec<Piece>) {
        if let Some(node) = &self.0 {
            statement.push(" AND ".into());
            push(node, statement);
        }
    }
}

fn push(node: &Node, out: &mut Vec<Piece>) {
    let several = |nodes: &[Node], between: &'static str, out: &mut Vec<Piece>| {
        out.push("(".into());
        for (index, node) in nodes.iter().enumerate() {
            if index > 0 {
                out.push(between.into());
            }
            push(node, out);
        }
        out.push(")".into());
    };
    match node {
        Node::Any(nodes) => several(nodes, " OR ", out),
        Node::All(nodes) => several(nodes, " AND ", out),
        Node::Not(node) => {
            // What is absent is not equal to anything: without this, neither it nor its opposite
            // would be found.
            out.push("NOT coalesce(".into());
            push(node, out);
            out.push(", FALSE)".into());
        }
        Node::Term { sql, op, value } => {
            if *op == Op::Contains {
                out.push("lower(".into());
                out.push((*sql).into());
                out.push(") LIKE ".into());
                let Value::Text(text) = value else { return };
                out.push(Piece::Text(like_anywhere(text)));
                out.push(" ESCAPE '\\'".into());
                return;
            }
            out.push((*sql).into());
            out.push(
                match op {
                    Op::Less => " < ",
                    Op::LessEqual => " <= ",
                    Op::Greater => " > ",
                    Op::GreaterEqual => " >= ",
                    Op::Equal | Op::Contains => " = ",
                }
                .into(),
            );
            out.push(match value {
                Value::Text(text) => Piece::Text(plain(text)),
                Value::Number(number) => Piece::Int(*number),
                Value::Truth(truth) => Piece::Bool(*truth),
            });
        }
    }
}

/// A `LIKE` pattern for texts that contain `text`, whatever characters it has.
pub(super) fn like_anywhere(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in plain(text).to_lowercase().chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

struct Parser<'a> {
    chars: &'a [char],
    at: usize,
    terms: usize,
    fields: &'a [FilterField],
    now: UnixMillis,
}

impl Parser<'_> {
    fn wrong(&self, text: impl fmt::Display) -> FilterError {
        FilterError {
            position: self.at,
            text: text.to_string(),
        }
    }

    fn skip(&mut self) {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
    }

    fn is_word(c: char) -> bool {
        c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '/' | '+')
    }

    /// The word here, without going past it.
    fn word(&self) -> String {
        let rest = self.chars.get(self.at..).unwrap_or_default();
        rest.iter().take_while(|c| Self::is_word(**c)).collect()
    }

    /// Goes past `word` if it stands here.
    fn keyword(&mut self, word: &str) -> bool {
        let here = self.word().eq_ignore_ascii_case(word);
        if here {
            self.at += word.len();
            self.skip();
        }
        here
    }

    fn any(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut nodes = vec![self.all(depth)?];
        while self.keyword("or") {
            nodes.push(self.all(depth)?);
        }
        Ok(single(nodes, Node::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut nodes = vec![self.one(depth)?];
        while self.keyword("and") {
            nodes.push(self.one(depth)?);
        }
        Ok(single(nodes, Node::All))
    }

    fn one(&mut self, depth: usize) -> Result<Node, FilterError> {
        if depth > MAX_DEPTH {
            return Err(self.wrong(format!("a filter nests at most {MAX_DEPTH} deep")));
        }
        if self.keyword("not") {
            return Ok(Node::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.chars.get(self.at) == Some(&'(') {
            self.at += 1;
            self.skip();
            let node = self.any(depth + 1)?;
            if self.chars.get(self.at) != Some(&')') {
                return Err(self.wrong("expected `)`"));
            }
            self.at += 1;
            self.skip();
            return Ok(node);
        }
        self.term()
    }

    fn term(&mut self) -> Result<Node, FilterError> {
        if self.terms == MAX_TERMS {
            return Err(self.wrong(format!("a filter has at most {MAX_TERMS} conditions")));
        }
        self.terms += 1;
        let name = self.word();
        let found = self.fields.iter().find(|field| field.name == name);
        let Some(field) = found.copied() else {
            let names: Vec<_> = self.fields.iter().map(|field| field.name).collect();
            return Err(self.wrong(format!("expected one of the fields {}", names.join(", "))));
        };
        self.at += name.chars().count();
        self.skip();
        let op_at = self.at;
        let op = self.op()?;
        let fits = match field.holds {
            Holds::Text => matches!(op, Op::Equal | Op::Contains),
            Holds::Word(_) | Holds::Truth => op == Op::Equal,
            Holds::Number => op != Op::Contains,
            Holds::Time => !matches!(op, Op::Contains | Op::Equal),
        };
        if !fits {
            let text = match field.holds {
                Holds::Text => "a text takes `:` and `~`",
                Holds::Word(_) | Holds::Truth => "this takes `:`",
                Holds::Number => "a number takes `:`, `<`, `<=`, `>` and `>=`",
                Holds::Time => "a time takes `<`, `<=`, `>` and `>=`",
            };
            return Err(FilterError {
                position: op_at,
                text: format!("{name}: {text}"),
            });
        }
        self.skip();
        let value_at = self.at;
        let text = self.value()?;
        let value = read(field.holds, &text, self.now).map_err(|text| FilterError {
            position: value_at,
            text: format!("{name}: {text}"),
        })?;
        self.skip();
        Ok(Node::Term {
            sql: field.sql,
            op,
            value,
        })
    }

    fn op(&mut self) -> Result<Op, FilterError> {
        let next = self.chars.get(self.at + 1);
        let (op, length) = match self.chars.get(self.at) {
            Some(':') => (Op::Equal, 1),
            Some('~') => (Op::Contains, 1),
            Some('<') if next == Some(&'=') => (Op::LessEqual, 2),
            Some('<') => (Op::Less, 1),
            Some('>') if next == Some(&'=') => (Op::GreaterEqual, 2),
            Some('>') => (Op::Greater, 1),
            _ => return Err(self.wrong("expected `:`, `~`, `<`, `<=`, `>` or `>=`")),
        };
        self.at += length;
        Ok(op)
    }

    fn value(&mut self) -> Result<String, FilterError> {
        if self.chars.get(self.at) != Some(&'"') {
            let word = self.word();
            if word.is_empty() {
                return Err(
                    self.wrong("expected a value; put it in quotes if it has other characters")
                );
            }
            self.at += word.chars().count();
            return Ok(word);
        }
        let mut text = String::new();
        self.at += 1;
        loop {
            match self.chars.get(self.at) {
                None => return Err(self.wrong("the quotes are not closed")),
                Some('"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some('\\') => {
                    let Some(c) = self
                        .chars
                        .get(self.at + 1)
                        .filter(|c| matches!(c, '"' | '\\'))
                    else {
                        return Err(self.wrong("after `\\` stands `\"` or `\\`"));
                    };
                    text.push(*c);
                    self.at += 2;
                }
                Some(c) => {
                    text.push(*c);
                    self.at += 1;
                }
            }
        }
    }
}

fn single(mut nodes: Vec<Node>, several: fn(Vec<Node>) -> Node) -> Node {
    if nodes.len() > 1 {
        return several(nodes);
    }
    nodes.pop().unwrap_or(Node::All(Vec::new()))
}

fn read(holds: Holds, text: &str, now: UnixMillis) -> Result<Value, String> {
    match holds {
        Holds::Text => Ok(Value::Text(text.to_owned())),
        Holds::Word(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
        Holds::Word(words) => Err(format!("expected one of {}", words.join(", "))),
        Holds::Truth => match text {
            "true" => Ok(Value::Truth(true)),
            "false" => Ok(Value::Truth(false)),
            _ => Err("expected true or false".to_owned()),
        },
        Holds::Number => {
            let number = text
                .parse()
                .map_err(|_| "expected a whole number".to_owned());
            number.map(Value::Number)
        }
        Holds::Time => time(text, now).map(Value::Number).ok_or_else(|| {
            "expected milliseconds, or an age such as 90s, 15m, 6h or 7d".to_owned()
        }),
    }
}

/// A moment: milliseconds, or so long before now.
fn time(text: &str, now: UnixMillis) -> Option<i64> {
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    let unit_at = text.char_indices().last()?.0;
    let (number, unit) = text.split_at(unit_at);
    let seconds: i64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let number: i64 = number.parse().ok().filter(|n| *n >= 0)?;
    now.0
        .checked_sub(number.checked_mul(seconds)?.checked_mul(1000)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000_000);
    const FIELDS: [FilterField; 4] = [
        FilterField {
            name: "site",
            sql: "site",
            holds: Holds::Text,
        },
        FilterField {
            name: "state",
            sql: "state",
            holds: Holds::Word(&["active", "revoked"]),
        },
        FilterField {
            name: "online",
            sql: "connected",
            holds: Holds::Truth,
        },
        FilterField {
            name: "seen",
            sql: "last_seen",
            holds: Holds::Time,
        },
    ];

    fn sql(text: &str) -> String {
        let mut pieces = Vec::new();
        Filter::parse(text, &FIELDS, NOW)
            .expect(text)
            .push(&mut pieces);
        pieces
            .into_iter()
            .map(|piece| match piece {
                Piece::Sql(sql) => sql.to_owned(),
                Piece::Text(text) => format!("<{text}>"),
                Piece::Int(number) => format!("<{number}>"),
                Piece::Bool(truth) => format!("<{truth}>"),
            })
            .collect()
    }

    #[test]
    fn and_binds_tighter_than_or() {
        assert_eq!(
            sql("state:active and online:true or site~\"a%b\""),
            " AND ((state = <active> AND connected = <true>) OR lower(site) LIKE <%a\\%b%> ESCAPE '\\')"
        );
        assert_eq!(
            sql("NOT (site:x OR seen<1h)"),
            " AND NOT coalesce((site = <x> OR last_seen < <996400000>), FALSE)"
        );
        assert_eq!(sql("  "), "");
    }

    #[test]
    fn what_does_not_fit_is_pointed_at() {
        for (text, position) in [
            ("colour:red", 0),
            ("state:active and", 16),
            ("state:gone", 6),
            ("state~act", 5),
            ("online:perhaps", 7),
            ("seen:5", 4),
            ("seen<soon", 5),
            ("site:\"open", 10),
            ("site:\"a\\b\"", 7),
            ("(state:active", 13),
            ("state:active) ", 12),
            ("state:active state:active", 13),
            ("site:", 5),
            ("site:x or ü:1", 10),
        ] {
            let error = Filter::parse(text, &FIELDS, NOW).expect_err(text);
            assert_eq!(error.position, position, "{text}: {error}");
        }
    }

    #[test]
    fn a_filter_is_bounded() {
        let parse = |text: &str| Filter::parse(text, &FIELDS, NOW);
        let many = vec!["site:x"; MAX_TERMS].join(" and ");
        assert!(parse(&many).is_ok());
        assert!(parse(&format!("{many} and site:x")).is_err());
        let deep = |n: usize| format!("{}site:x{}", "(".repeat(n), ")".repeat(n));
        assert!(parse(&deep(MAX_DEPTH)).is_ok());
        assert!(parse(&deep(MAX_DEPTH + 1)).is_err());
        assert!(parse(&"not ".repeat(200)).is_err());
        assert!(parse(&" ".repeat(MAX_CHARS + 1)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in any::<String>()) {
            let _ = Filter::parse(&text, &FIELDS, NOW);
        }

        #[test]
        fn what_is_quoted_is_a_value_and_nothing_else(text in "[^\u{0}]{0,50}") {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(sql(&format!("site:\"{quoted}\"")), format!(" AND site = <{text}>"));
        }
    }
}
