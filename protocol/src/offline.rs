//! Enrolment without a line between box and cloud: the box's evidence as text, the cloud's answer as a
//! file, one round trip.
//!
//! The text is made of lines that fit a QR code on an 80x25 console each, in the alphabet that QR codes
//! hold best; a file holds all of them. They may come in any order, and more than once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::enrol::{Issued, LanCertificate};
use crate::ids::{BoxId, EpochId};
use crate::ticket::CredentialSet;
use crate::twin::SignedDesired;
use crate::value::{Blob, Digest32, Jws, UnixMillis};

/// The longest text of a request that is read, in bytes.
pub const MAX_REQUEST_TEXT: usize = 16 * 1024;
/// The longest answer, in bytes.
pub const MAX_ANSWER: usize = 512 * 1024;
/// The longest file of a journal, in bytes.
pub const MAX_JOURNAL_FILE: usize = 1024 * 1024;
/// Addresses in a request at the most.
pub const MAX_ADDRESSES: usize = 4;

const VERSION: u8 = 1;
const MARK: &str = "LH1";
/// Bytes in one line: 200 characters of base32, which with their head fit a QR code of version 7.
const PART: usize = 125;
/// Lines at the most.
const MAX_PARTS: usize = 40;
/// The longest piece of evidence, in bytes.
const MAX_PIECE: usize = 1024;
const MAX_PCRS: usize = 24;

/// What a box says to be enrolled, without having been asked.
///
/// Certification and quote are over [`Request::statement`], which holds a nonce of the box's own: the
/// answer to another request is none to this one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// The box.
    pub box_id: BoxId,
    /// Drawn by the box for this request.
    pub nonce: [u8; 16],
    /// The box's clock.
    pub made: UnixMillis,
    /// The endorsement key (SubjectPublicKeyInfo, DER).
    pub ek_public: Blob,
    /// The new key's `TPMT_PUBLIC`.
    pub ldevid_public: Blob,
    /// The LAN endpoint's key (SubjectPublicKeyInfo, DER).
    pub lan_public: Blob,
    /// Where the box is on its LAN, at most [`MAX_ADDRESSES`].
    pub addresses: Vec<IpAddr>,
    /// `TPMS_ATTEST` of `TPM2_Certify` over the new key by the attestation key.
    pub certify_attest: Blob,
    /// Its `TPMT_SIGNATURE`.
    pub certify_signature: Blob,
    /// `TPMS_ATTEST` of `TPM2_Quote` by the attestation key.
    pub quote_attest: Blob,
    /// Its `TPMT_SIGNATURE`.
    pub quote_signature: Blob,
    /// The values of the quoted PCRs, by number.
    pub pcr_values: BTreeMap<u8, Digest32>,
}

/// Why a text is no request.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadRequest {
    /// Longer than any request.
    #[error("the text is longer than a request can be")]
    TooLong,
    /// There is no line of a request in it.
    #[error("the text holds no request of a box: its lines begin with {MARK}/")]
    Nothing,
    /// A line that begins like one of a request is none.
    #[error("line {0} is damaged or cut short")]
    Line(usize),
    /// Lines of two requests.
    #[error("the lines are of more than one request")]
    Mixed,
    /// Lines are missing.
    #[error("of {of} parts, these are missing: {missing}")]
    Missing {
        /// How many there are.
        of: usize,
        /// Which are not there.
        missing: String,
    },
    /// What the lines hold together is no request.
    #[error("what the lines hold is no request, or one of a newer box")]
    Malformed,
}

impl Request {
    /// What the box states about itself: certification and quote are over its hash.
    pub fn statement(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(self.box_id.as_str().bytes());
        out.extend(self.nonce);
        out.extend(self.made.0.to_be_bytes());
        for piece in [&self.ek_public, &self.ldevid_public, &self.lan_public] {
            put(&mut out, &piece.0);
        }
        out.push(count(self.addresses.len().min(MAX_ADDRESSES)));
        for address in self.addresses.iter().take(MAX_ADDRESSES) {
            match address {
                IpAddr::V4(v4) => put(&mut out, &v4.octets()),
                IpAddr::V6(v6) => put(&mut out, &v6.octets()),
            }
        }
        out
    }

    /// Everything, as it is hashed and told.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.statement();
        for piece in [
            &self.certify_attest,
            &self.certify_signature,
            &self.quote_attest,
            &self.quote_signature,
        ] {
            put(&mut out, &piece.0);
        }
        out.push(count(self.pcr_values.len().min(MAX_PCRS)));
        for (pcr, value) in self.pcr_values.iter().take(MAX_PCRS) {
            out.push(*pcr);
            out.extend(value.0);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut left = bytes;
        let [VERSION] = take::<1>(&mut left)? else {
            return None;
        };
        let box_id = std::str::from_utf8(&take::<12>(&mut left)?).ok()?.parse();
        let request = Self {
            box_id: box_id.ok()?,
            nonce: take(&mut left)?,
            made: UnixMillis(i64::from_be_bytes(take(&mut left)?)),
            ek_public: piece(&mut left)?,
            ldevid_public: piece(&mut left)?,
            lan_public: piece(&mut left)?,
            addresses: addresses(&mut left)?,
            certify_attest: piece(&mut left)?,
            certify_signature: piece(&mut left)?,
            quote_attest: piece(&mut left)?,
            quote_signature: piece(&mut left)?,
            pcr_values: pcrs(&mut left)?,
        };
        left.is_empty().then_some(request)
    }

    /// The lines, each fit for a QR code.
    pub fn lines(&self) -> Vec<String> {
        let bytes = self.encode();
        let parts: Vec<_> = bytes.chunks(PART).collect();
        let of = parts.len();
        let lines = parts.into_iter().enumerate().map(|(at, part)| {
            let (id, number) = (&self.box_id, at + 1);
            format!("{MARK}/{id}/{number:02}/{of:02}/{}", base32(part))
        });
        lines.collect()
    }

    /// The lines as one text.
    pub fn text(&self) -> String {
        let mut text = self.lines().join("\n");
        text.push('\n');
        text
    }

    /// Reads a text that holds the lines of one request, in any order; other lines are passed over.
    ///
    /// # Errors
    ///
    /// [`BadRequest`] says what is wrong with it, for a person.
    pub fn read(text: &str) -> Result<Self, BadRequest> {
        if text.len() > MAX_REQUEST_TEXT {
            return Err(BadRequest::TooLong);
        }
        let mut head: Option<(&str, usize)> = None;
        let mut parts: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        let words = text.split_whitespace();
        let lines = words.filter(|word| word.starts_with(MARK));
        for (at, line) in lines.enumerate() {
            let part = Line::read(line).ok_or(BadRequest::Line(at + 1))?;
            let of = *head.get_or_insert((part.box_id, part.of));
            if of != (part.box_id, part.of) {
                return Err(BadRequest::Mixed);
            }
            let known = parts
                .entry(part.number)
                .or_insert_with(|| part.bytes.clone());
            if *known != part.bytes {
                return Err(BadRequest::Mixed);
            }
        }
        let Some((_, of)) = head else {
            return Err(BadRequest::Nothing);
        };
        let mut missing = String::new();
        for number in (1..=of).filter(|number| !parts.contains_key(number)) {
            let comma = if missing.is_empty() { "" } else { ", " };
            let _ = write!(missing, "{comma}{number}");
        }
        if !missing.is_empty() {
            return Err(BadRequest::Missing { of, missing });
        }
        let bytes: Vec<u8> = parts.into_values().flatten().collect();
        let request = Self::decode(&bytes).ok_or(BadRequest::Malformed)?;
        let named = head.is_some_and(|(id, _)| id == request.box_id.as_str());
        named.then_some(request).ok_or(BadRequest::Malformed)
    }
}

struct Line<'a> {
    box_id: &'a str,
    number: usize,
    of: usize,
    bytes: Vec<u8>,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split('/');
        let mut next = || fields.next();
        let (_, box_id) = (next()?, next()?);
        let (number, of) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let bytes = unbase32(next()?)?;
        // Every part but the last is full: one that was cut short is noticed here.
        let whole = if number == of {
            (1..=PART).contains(&bytes.len())
        } else {
            bytes.len() == PART
        };
        let fits = (1..=of).contains(&number) && of <= MAX_PARTS && whole;
        (fits && next().is_none()).then_some(Self {
            box_id,
            number,
            of,
            bytes,
        })
    }
}

fn put(out: &mut Vec<u8>, piece: &[u8]) {
    let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend(&piece[..usize::from(length)]);
}

/// A number of things, of which there are a few.
fn count(things: usize) -> u8 {
    u8::try_from(things).unwrap_or(u8::MAX)
}

fn take<const N: usize>(left: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = left.split_first_chunk::<N>()?;
    *left = rest;
    Some(*head)
}

fn piece(left: &mut &[u8]) -> Option<Blob> {
    let length = usize::from(u16::from_be_bytes(take(left)?));
    if length > MAX_PIECE {
        return None;
    }
    let (head, rest) = left.split_at_checked(length)?;
    *left = rest;
    Some(Blob(head.to_vec()))
}

fn addresses(left: &mut &[u8]) -> Option<Vec<IpAddr>> {
    let [count] = take(left)?;
    if usize::from(count) > MAX_ADDRESSES {
        return None;
    }
    let each = (0..count).map(|_| {
        let Blob(bytes) = piece(left)?;
        let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(|o| IpAddr::V4(Ipv4Addr::from(o)));
        let v6 = <[u8; 16]>::try_from(bytes.as_slice()).map(|o| IpAddr::V6(Ipv6Addr::from(o)));
        v4.or(v6).ok()
    });
    each.collect()
}

fn pcrs(left: &mut &[u8]) -> Option<BTreeMap<u8, Digest32>> {
    let [count] = take(left)?;
    let mut values = BTreeMap::new();
    for _ in 0..count {
        let [pcr] = take(left)?;
        // Rising, so that one request has one encoding.
        let rises = values.last_key_value().is_none_or(|(last, _)| *last < pcr);
        if !rises || usize::from(pcr) >= MAX_PCRS {
            return None;
        }
        values.insert(pcr, Digest32(take(left)?));
    }
    Some(values)
}

/// RFC 4648 section 6, without padding.
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut held, mut bits) = (0_u32, 0);
    for byte in bytes {
        held = ((held << 8) | u32::from(*byte)) & 0xffff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[((held >> bits) & 31) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[((held << (5 - bits)) & 31) as usize]));
    }
    text
}

fn unbase32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0_u32, 0);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a',
            b'2'..=b'7' => c - b'2' + 26,
            _ => return None,
        };
        held = ((held << 5) | u32::from(value)) & 0xffff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits).to_le_bytes()[0]);
        }
    }
    // What is left of the last character is nothing.
    (bits < 5 && held & ((1 << bits) - 1) == 0).then_some(bytes)
}

/// What the cloud signs of an answer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AnswerClaims {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// The one box that it is for.
    pub box_id: BoxId,
    /// SHA-256 of the request that it answers ([`Request::encode`]).
    pub request: Digest32,
    /// The cloud's clock.
    pub issued: UnixMillis,
    /// When it ends.
    pub expires: UnixMillis,
    /// `TPMS_ID_OBJECT` contents for `TPM2_ActivateCredential`: only this box's TPM yields the key of
    /// the grant.
    pub credential_blob: Blob,
    /// `TPM2B_ENCRYPTED_SECRET` contents for `TPM2_ActivateCredential`.
    pub encrypted_secret: Blob,
    /// SHA-256 of the sealed grant.
    pub sealed_sha256: Digest32,
}

/// The file that goes back to the box.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// [`AnswerClaims`], signed.
    pub answer: Jws,
    /// [`Grant`] as JSON, under AES-256-GCM with the key that the TPM yields.
    pub sealed: Blob,
}

/// What a box gets.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Grant {
    /// The box's certificate, and where to go with it.
    pub issued: Issued,
    /// The certificate of its LAN endpoint.
    pub lan: LanCertificate,
    /// The desired state, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<SignedDesired>,
    /// The tickets' secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialSet>,
}

/// What a box signs of a file with a part of its journal: the first line of the file, as a JWS.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct JournalClaims {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// Whose journal it is.
    pub box_id: BoxId,
    /// The life of the journal in which the numbers count.
    pub epoch: EpochId,
    /// The first number in the file.
    pub first: u64,
    /// The last number in the file.
    pub last: u64,
    /// The box's clock.
    pub made: UnixMillis,
    /// SHA-256 of everything behind the first line: one entry a line, JSON.
    pub sha256: Digest32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let filled = |length: usize, byte: u8| Blob(vec![byte; length]);
        Request {
            box_id: "0123456789AB".parse().unwrap(),
            nonce: [7; 16],
            made: UnixMillis(1_790_000_000_000),
            ek_public: filled(120, 1),
            ldevid_public: filled(90, 2),
            lan_public: filled(91, 3),
            addresses: vec!["192.168.1.40".parse().unwrap(), "fe80::1".parse().unwrap()],
            certify_attest: filled(161, 4),
            certify_signature: filled(72, 5),
            quote_attest: filled(145, 6),
            quote_signature: filled(72, 7),
            pcr_values: [0, 2, 4, 7].map(|pcr| (pcr, Digest32([pcr; 32]))).into(),
        }
    }

    #[test]
    fn lines_may_come_in_any_order_and_twice() {
        let request = request();
        let mut lines = request.lines();
        lines.reverse();
        lines.push(lines[0].clone());
        lines.insert(1, "and some words of a mail\r".to_owned());

        assert_eq!(Request::read(&lines.join("\n")), Ok(request.clone()));
        for line in request.lines() {
            assert!(Request::read(&line).is_err(), "one line is no request");
        }
    }

    #[test]
    fn every_line_fits_the_consoles_qr_code() {
        let lines = request().lines();
        // Version 7, level L, alphanumeric: ISO/IEC 18004, table 7.
        assert!(lines.iter().all(|line| line.len() <= 224), "{lines:?}");
        assert!(lines.len() <= 12, "{} codes", lines.len());
    }

    #[test]
    fn what_is_missing_mixed_or_cut_is_said() {
        let text = request().text();
        let lines: Vec<_> = text.lines().collect();

        let without = [lines[0], lines[2], lines[3]].join("\n");
        let Err(BadRequest::Missing { missing, .. }) = Request::read(&without) else {
            panic!("not missed");
        };
        assert!(missing.starts_with("2, 5, 6"), "{missing}");
        let other = Request {
            nonce: [8; 16],
            ..request()
        };
        let mixed = text.clone() + &other.text();
        assert_eq!(Request::read(&mixed), Err(BadRequest::Mixed));
        let cut = &text[..text.len() - 260];
        assert!(matches!(
            Request::read(cut),
            Err(BadRequest::Missing { .. } | BadRequest::Line(_))
        ));
        assert_eq!(Request::read(""), Err(BadRequest::Nothing));
        assert_eq!(Request::read("hello"), Err(BadRequest::Nothing));
        assert_eq!(Request::read("LH1/x"), Err(BadRequest::Line(1)));
        let long = "x".repeat(MAX_REQUEST_TEXT + 1);
        assert_eq!(Request::read(&long), Err(BadRequest::TooLong));
    }

    #[test]
    fn no_cut_and_no_flipped_character_panics_or_yields_the_same() {
        let (request, text) = (request(), request().text());
        for at in 0..text.len() - 1 {
            assert_ne!(Request::read(&text[..at]).as_ref(), Ok(&request), "{at}");
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_ne!(Request::read(&changed).as_ref(), Ok(&request), "{at}");
        }
    }

    #[test]
    fn base32_is_that_of_the_standard() {
        for (clear, text) in [
            ("", ""),
            ("f", "MY"),
            ("foob", "MZXW6YQ"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(clear.as_bytes()), text);
            assert_eq!(unbase32(text).as_deref(), Some(clear.as_bytes()));
        }
        assert_eq!(
            unbase32("MZ"),
            None,
            "bits that stand for nothing are nothing"
        );
        assert_eq!(unbase32("M"), None);
        assert_eq!(unbase32("M1"), None);
    }
}
