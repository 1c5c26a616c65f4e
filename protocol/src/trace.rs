//! Where a message belongs in a trace: W3C Trace Context, level 1 (`traceparent`).
//!
//! Nothing depends on it but what people see: a trace that cannot be read is no trace, and what carries it
//! is taken all the same.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A trace, the span in it that caused a message, and whether anybody records it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceParent {
    /// The trace.
    pub trace: [u8; 16],
    /// The span.
    pub span: [u8; 8],
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// A text that is no `traceparent`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a traceparent of W3C Trace Context")]
pub struct NoTrace;

impl FromStr for TraceParent {
    type Err = NoTrace;

    fn from_str(text: &str) -> Result<Self, NoTrace> {
        let mut parts = text.split('-');
        let mut next = |length: usize| parts.next().filter(|p| p.len() == length).ok_or(NoTrace);
        let [version] = bytes(next(2)?)?;
        let (trace, span) = (bytes(next(32)?)?, bytes(next(16)?)?);
        let [flags] = bytes(next(2)?)?;
        // Later versions may say more behind it; this one does not, and 255 is none.
        let fits = version != 0xff && (version > 0 || parts.next().is_none());
        if !fits || trace == [0; 16] || span == [0; 8] {
            return Err(NoTrace);
        }
        Ok(Self {
            trace,
            span,
            sampled: flags & 1 == 1,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{}-{}-{flags:02x}", hex(&self.trace), hex(&self.span))
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads a field that may hold anything; what is no `traceparent` is absent.
pub(crate) fn lenient<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<TraceParent>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_str().and_then(|text| text.parse().ok()))
}

/// Bytes in lower-case hexadecimal, as traces write them.
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
    digits.collect()
}

/// Reads `N` bytes of lower-case hexadecimal.
///
/// # Errors
///
/// [`NoTrace`] if it is anything else.
pub fn bytes<const N: usize>(text: &str) -> Result<[u8; N], NoTrace> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(NoTrace),
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return Err(NoTrace);
    }
    let mut out = [0; N];
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::SignedCommand;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_standards_example_is_read_and_written() {
        let parsed: TraceParent = TEXT.parse().expect("a traceparent");
        assert!(parsed.sampled);
        assert_eq!(parsed.to_string(), TEXT);
        let later = format!("{}-more", TEXT.replacen("00", "01", 1));
        assert_eq!(later.parse(), Ok(parsed));
    }

    #[test]
    fn what_is_none_is_refused() {
        let zeros = TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        for text in [
            "",
            "00",
            &TEXT.to_uppercase(),
            &TEXT.replacen("00", "ff", 1),
            &format!("{TEXT}-more"),
            &TEXT[1..],
            &TEXT.replace('7', "é"),
            &zeros,
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(NoTrace), "{text}");
        }
    }

    #[test]
    fn a_command_is_read_with_a_trace_without_and_with_a_broken_one() {
        let read = |text: String| serde_json::from_str::<SignedCommand>(&text).expect("a command");
        assert_eq!(read(r#"{"jws":"a.b.c"}"#.to_owned()).traceparent, None);
        for broken in ["\"x\"", "7", "null", "{}"] {
            let text = format!(r#"{{"jws":"a.b.c","traceparent":{broken}}}"#);
            assert_eq!(read(text).traceparent, None);
        }
        let text = format!(r#"{{"jws":"a.b.c","traceparent":"{TEXT}"}}"#);
        let command = read(text.clone());
        assert_eq!(command.traceparent, TEXT.parse().ok());
        assert_eq!(serde_json::to_string(&command).expect("JSON"), text);
    }
}
