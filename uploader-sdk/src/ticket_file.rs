//! Tickets on disk: read, checked field by field, with an error that says what to do.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ticket::Ticket;
use longhaul_protocol::value::UnixMillis;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::clock;

/// Why a ticket cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The file could not be read.
    #[error(
        "failed to read ticket {path}; check the path, or get the ticket again from whoever sent the box"
    )]
    Read {
        /// The ticket's file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Far longer than a ticket.
    #[error("{path} is longer than {MAX_BYTES} bytes: it is not a ticket; check the path")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Not JSON, or not an object.
    #[error("{path} is not a ticket ({why}); get it again from whoever sent the box")]
    NotATicket {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Written for a newer program.
    #[error(
        "ticket {path} has version {version}, this program reads version {VERSION}; update longhaul"
    )]
    UnknownVersion {
        /// The ticket's file.
        path: PathBuf,
        /// The version that it carries.
        version: u16,
    },
    /// A field is missing or wrong.
    #[error(
        "field {field:?} of ticket {path}: {why}; get the ticket again from whoever sent the box"
    )]
    Field {
        /// The ticket's file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Its time is over.
    #[error("ticket {path} expired at {when}; ask whoever sent the box for a new one")]
    Expired {
        /// The ticket's file.
        path: PathBuf,
        /// When, in UTC.
        when: String,
    },
}

/// The longest file that is read as a ticket, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// Reads and checks a ticket.
///
/// # Errors
///
/// [`TicketError`] where the file cannot be read, is not a ticket, or has expired.
pub fn load_ticket(path: &Path) -> Result<Ticket, TicketError> {
    parse_ticket(&read_ticket(path)?, path, clock::now())
}

/// Reads and checks a ticket that may have ended: its receipts are wanted when the job is over.
///
/// # Errors
///
/// [`TicketError`] where the file cannot be read or is not a ticket.
pub fn load_ended_ticket(path: &Path) -> Result<Ticket, TicketError> {
    parse_ticket(&read_ticket(path)?, path, UnixMillis(i64::MIN))
}

fn read_ticket(path: &Path) -> Result<String, TicketError> {
    let read = |source| TicketError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(read)?;
    let length = file
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(read)?;
    if length as u64 > MAX_BYTES {
        return Err(TicketError::TooLong {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

/// Checks a ticket's text; `path` is only named in errors.
///
/// # Errors
///
/// [`TicketError`] where the text is not a ticket or it has expired by `now`.
pub fn parse_ticket(text: &str, path: &Path, now: UnixMillis) -> Result<Ticket, TicketError> {
    let not = |why: String| TicketError::NotATicket {
        path: path.to_owned(),
        why,
    };
    let Value::Object(object) =
        serde_json::from_str::<Value>(text).map_err(|e| not(e.to_string()))?
    else {
        return Err(not("it is not a JSON object".to_owned()));
    };
    let fields = Fields { path, object };
    let v: u16 = fields.required("v")?;
    if v != VERSION {
        return Err(TicketError::UnknownVersion {
            path: path.to_owned(),
            version: v,
        });
    }
    let ticket = Ticket {
        v,
        id: fields.required("id")?,
        box_id: fields.required("box_id")?,
        order: fields.optional("order")?,
        bucket: fields.text("bucket")?,
        region: fields.text("region")?,
        access_key: fields.text("access_key")?,
        secret_key: fields.required("secret_key")?,
        issued: fields.optional("issued")?,
        expires: fields.required("expires")?,
        root_pem: fields.text("root_pem")?,
        lan_urls: fields.optional("lan_urls")?.unwrap_or_default(),
        cloud_url: fields.optional("cloud_url")?,
    };
    check_roots(&ticket.root_pem).map_err(|why| fields.wrong("root_pem", why))?;
    if ticket.expires <= now {
        return Err(TicketError::Expired {
            path: path.to_owned(),
            when: utc(ticket.expires),
        });
    }
    Ok(ticket)
}

struct Fields<'a> {
    path: &'a Path,
    object: Map<String, Value>,
}

impl Fields<'_> {
    fn wrong(&self, field: &'static str, why: impl Into<String>) -> TicketError {
        TicketError::Field {
            path: self.path.to_owned(),
            field,
            why: why.into(),
        }
    }

    fn optional<T: DeserializeOwned>(&self, field: &'static str) -> Result<Option<T>, TicketError> {
        match self.object.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value)
                .map(Some)
                .map_err(|e| self.wrong(field, e.to_string())),
        }
    }

    fn required<T: DeserializeOwned>(&self, field: &'static str) -> Result<T, TicketError> {
        self.optional(field)?
            .ok_or_else(|| self.wrong(field, "it is missing"))
    }

    fn text(&self, field: &'static str) -> Result<String, TicketError> {
        let text: String = self.required(field)?;
        if text.is_empty() {
            return Err(self.wrong(field, "it is empty"));
        }
        Ok(text)
    }
}

/// The certificates of a PEM text, each of which must be able to anchor a chain.
///
/// # Errors
///
/// What is wrong with the text.
pub fn check_roots(pem: &str) -> Result<rustls::RootCertStore, String> {
    let mut roots = rustls::RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.map_err(|e| format!("not PEM: {e}"))?;
        roots
            .add(der)
            .map_err(|e| format!("not a certificate: {e}"))?;
    }
    if roots.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    Ok(roots)
}

/// A time as people read it.
pub(crate) fn utc(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(
        |_| format!("{} ms", at.0),
        |t| t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

/// When a ticket ends, for people.
pub fn expires_text(ticket: &Ticket) -> String {
    utc(ticket.expires)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn sample() -> Value {
        let key = rcgen::KeyPair::generate().expect("a key");
        let root = rcgen::CertificateParams::new(vec!["root".to_owned()])
            .and_then(|p| p.self_signed(&key))
            .expect("a root");
        json!({
            "v": 1, "id": "t-1", "box_id": "ZZZZZZZZZZZZ", "bucket": "b", "region": "us-east-1",
            "access_key": "ak", "secret_key": "sk", "expires": 2_000,
            "root_pem": root.pem(), "lan_urls": ["https://192.0.2.1:9000"], "new_field": true,
        })
    }

    fn parse(value: &Value, now: i64) -> Result<Ticket, TicketError> {
        parse_ticket(&value.to_string(), Path::new("t.json"), UnixMillis(now))
    }

    #[test]
    fn a_good_ticket_is_read_and_unknown_fields_are_ignored() {
        let ticket = parse(&sample(), 1_999).expect("good");

        assert_eq!(ticket.box_id.as_str(), "ZZZZZZZZZZZZ");
        assert_eq!(ticket.lan_urls.len(), 1);
    }

    #[test]
    fn an_expired_ticket_says_when() {
        let error = parse(&sample(), 2_000).expect_err("over");

        assert!(
            error.to_string().contains("1970-01-01 00:00:02 UTC"),
            "{error}"
        );
    }

    #[test]
    fn each_bad_field_is_named_with_its_file() {
        for (field, bad) in [
            ("box_id", json!("zz")),
            ("id", json!("")),
            ("bucket", json!("")),
            ("root_pem", json!("hello")),
            ("expires", json!("soon")),
            ("lan_urls", json!(7)),
            ("secret_key", Value::Null),
        ] {
            let mut value = sample();
            value[field] = bad;
            let error = parse(&value, 0).expect_err(field).to_string();
            assert!(
                error.contains(field) && error.contains("t.json"),
                "{field}: {error}"
            );
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_number() {
        let mut value = sample();
        value["v"] = json!(9);

        assert!(matches!(
            parse(&value, 0),
            Err(TicketError::UnknownVersion { version: 9, .. })
        ));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load_ticket(Path::new("/nowhere/ticket.json")).expect_err("absent");

        assert!(error.to_string().contains("/nowhere/ticket.json"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            prop_assert!(parse_ticket(&text, Path::new("t"), UnixMillis(0)).is_err());
        }
    }
}
