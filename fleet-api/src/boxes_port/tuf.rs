//! The repository of releases, as files: metadata and targets, with ranges, so that a box resumes.

use std::io;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::Refusal;
use super::answer::{AnswerBody, empty};

/// Bytes read at once.
const READ_BYTES: usize = 128 * 1024;

/// Answers with the file `below` the repository, or the range of it that was asked for.
pub(super) async fn file<B>(
    dir: &Path,
    below: &str,
    request: &Request<B>,
) -> Result<Response<AnswerBody>, Refusal> {
    let missing = || {
        let text = format!("no file {below} in the release repository");
        Refusal::new(StatusCode::NOT_FOUND, "not-found", text)
    };
    let path = path(dir, below).ok_or_else(missing)?;
    let mut file = match tokio::fs::File::open(&path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
        Err(error) => return Err(failed(&path, &error)),
    };
    let metadata = file.metadata().await.map_err(|e| failed(&path, &e))?;
    if !metadata.is_file() {
        return Err(missing());
    }
    let total = metadata.len();
    let asked = request.headers().get(RANGE).and_then(|v| v.to_str().ok());
    let (status, start, length) = match asked.map(|text| range(text, total)) {
        // A header that is not understood is ignored (RFC 9110 section 14.2).
        None | Some(Asked::Everything) => (StatusCode::OK, 0, total),
        Some(Asked::Part(start, length)) => (StatusCode::PARTIAL_CONTENT, start, length),
        Some(Asked::Nothing) => {
            let mut response = empty(StatusCode::RANGE_NOT_SATISFIABLE);
            set(&mut response, CONTENT_RANGE, &format!("bytes */{total}"));
            return Ok(response);
        }
    };
    let mut response = if request.method() == Method::HEAD {
        empty(status)
    } else {
        file.seek(io::SeekFrom::Start(start))
            .await
            .map_err(|e| failed(&path, &e))?;
        let bytes = ReaderStream::with_capacity(file.take(length), READ_BYTES);
        let mut response = Response::new(StreamBody::new(bytes.map_ok(Frame::data)).boxed_unsync());
        *response.status_mut() = status;
        response
    };
    set(&mut response, CONTENT_LENGTH, &length.to_string());
    set(&mut response, ACCEPT_RANGES, "bytes");
    set(&mut response, CONTENT_TYPE, "application/octet-stream");
    if status == StatusCode::PARTIAL_CONTENT {
        let span = format!("bytes {start}-{}/{total}", start + length - 1);
        set(&mut response, CONTENT_RANGE, &span);
    }
    Ok(response)
}

fn set(response: &mut Response<AnswerBody>, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn failed(path: &Path, error: &io::Error) -> Refusal {
    tracing::error!(path = %path.display(), %error, "failed to read the release repository");
    let text = "the release repository cannot be read";
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
}

/// `/metadata/NAME` or `/targets/NAME`, where the name is one plain segment after its escapes.
fn path(dir: &Path, below: &str) -> Option<PathBuf> {
    let (folder, name) = below.strip_prefix('/')?.split_once('/')?;
    if !matches!(folder, "metadata" | "targets") {
        return None;
    }
    let name = percent_encoding::percent_decode_str(name)
        .decode_utf8()
        .ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-+".contains(&b);
    if name.is_empty() || name.len() > 255 || name.starts_with('.') || !name.bytes().all(plain) {
        return None;
    }
    Some(dir.join(folder).join(&*name))
}

#[derive(Debug, Eq, PartialEq)]
enum Asked {
    Everything,
    /// Start and length.
    Part(u64, u64),
    Nothing,
}

/// One range of bytes; several at once get everything, as the standard allows.
fn range(text: &str, total: u64) -> Asked {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|t| t.split_once('-')) else {
        return Asked::Everything;
    };
    let number = |text: &str| text.parse::<u64>().ok();
    match (first, number(first), last, number(last)) {
        ("", _, _, Some(suffix)) if suffix > 0 && total > 0 => {
            let length = suffix.min(total);
            Asked::Part(total - length, length)
        }
        ("", _, _, Some(_)) => Asked::Nothing,
        (_, Some(first), "", _) if first < total => Asked::Part(first, total - first),
        (_, Some(first), _, Some(last)) if first <= last && first < total => {
            Asked::Part(first, last.min(total - 1) - first + 1)
        }
        (_, Some(first), "", _) if first >= total => Asked::Nothing,
        (_, Some(first), _, Some(last)) if first <= last => Asked::Nothing,
        _ => Asked::Everything,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_the_standard() {
        assert_eq!(range("bytes=0-", 10), Asked::Part(0, 10));
        assert_eq!(range("bytes=4-", 10), Asked::Part(4, 6));
        assert_eq!(range("bytes=2-3", 10), Asked::Part(2, 2));
        assert_eq!(range("bytes=2-99", 10), Asked::Part(2, 8));
        assert_eq!(range("bytes=-3", 10), Asked::Part(7, 3));
        assert_eq!(range("bytes=-99", 10), Asked::Part(0, 10));
        assert_eq!(range("bytes=10-", 10), Asked::Nothing);
        assert_eq!(range("bytes=-0", 10), Asked::Nothing);
        for ignored in [
            "",
            "lines=1-2",
            "bytes=3-2",
            "bytes=a-b",
            "bytes=1-2,4-5",
            "bytes=-",
        ] {
            assert_eq!(range(ignored, 10), Asked::Everything, "{ignored}");
        }
    }

    #[test]
    fn no_path_leaves_the_repository() {
        let dir = Path::new("/repo");

        assert_eq!(
            path(dir, "/metadata/1.root.json"),
            Some(PathBuf::from("/repo/metadata/1.root.json"))
        );
        for bad in [
            "",
            "/",
            "/metadata/",
            "/metadata/../x",
            "/targets/..%2fx",
            "/targets/a/b",
            "/other/x",
            "/targets/.hidden",
            "/targets/a%00b",
            "metadata/x",
        ] {
            assert_eq!(path(dir, bad), None, "{bad}");
        }
    }
}
