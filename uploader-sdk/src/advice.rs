//! What S3's error codes mean for a push, and what the customer should do about them.

use std::error::Error;

/// Whether the same request may succeed later.
pub fn transient(code: Option<&str>, status: Option<u16>) -> bool {
    match code {
        Some(
            "SlowDown" | "RequestTimeout" | "InternalError" | "ServiceUnavailable" | "BadDigest"
            | "IncompleteBody" | "OperationAborted",
        ) => true,
        Some("DiskFull" | "InsufficientStorage") => false,
        _ => match status {
            Some(507) => false,
            Some(408 | 425 | 429 | 500..) | None => true,
            Some(_) => false,
        },
    }
}

/// Whether every other request would fail in the same way.
pub fn ends_everything(code: Option<&str>, status: Option<u16>) -> bool {
    matches!(
        code,
        Some(
            "AccessDenied"
                | "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "ExpiredToken"
                | "NoSuchBucket"
                | "RequestTimeTooSkewed"
                | "DiskFull"
                | "InsufficientStorage"
        )
    ) || status == Some(507)
}

/// What to do, as the end of a sentence; empty where nothing is known.
pub fn sentence(code: Option<&str>, status: Option<u16>) -> &'static str {
    match code {
        Some("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken") => {
            "; the box does not accept this ticket: ask whoever sent the box for a new one"
        }
        Some("AccessDenied") => {
            "; the ticket does not allow this: ask whoever sent the box for one that does"
        }
        Some("NoSuchBucket") => {
            "; the ticket names a bucket that this box does not carry: ask whoever sent the box for a new one"
        }
        Some("RequestTimeTooSkewed") => "; set this computer's clock",
        Some("DiskFull" | "InsufficientStorage") => {
            "; the box is full: wait until it has delivered, then run the same command again"
        }
        Some("EntityTooLarge") => "; the file is larger than the box or the bucket can hold",
        Some("KeyTooLongError" | "InvalidArgument" | "InvalidURI") => "; rename the file",
        Some("SlowDown") => "; the box is busy: run the same command again in a while",
        _ => match status {
            Some(507) => {
                "; the box is full: wait until it has delivered, then run the same command again"
            }
            // An answer to HEAD has no body that would say more.
            Some(401 | 403) if code.is_none() => {
                "; the box does not accept this ticket: it has ended or is for another box; ask whoever sent the box for a new one"
            }
            None => "; check the cable and the box, then run the same command again: it continues",
            Some(_) => "",
        },
    }
}

/// An error and its causes in one line, without the ones that repeat the next.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|t| t.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}
