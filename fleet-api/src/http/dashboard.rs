//! The operators' dashboard: static files that were built into this program.

use ::http::{HeaderValue, StatusCode, header};
use rust_embed::RustEmbed;
use warp::reply::{Reply as _, Response};

/// What Vite built.
#[derive(RustEmbed)]
#[folder = "../dashboards/operator/dist"]
#[allow_missing = true]
struct Dist;

/// Nothing but this site's own files, no inline script or style, no frame around it.
pub const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// What is shown while the dashboard has not been built.
const NOT_BUILT: &str = "The operators' dashboard is not part of this build. Build it with \
    `npm ci && npm run build` in dashboards/operator, then build longhaul-cloud again. \
    The API is at /v1/, its description at /v1/openapi.json.\n";

/// The file at `path`. A path without a dot in its last segment is a place within the dashboard,
/// which finds its own way: it gets the dashboard's page.
pub fn file(path: &str) -> Response {
    let name = path.trim_start_matches('/');
    if let Some(found) = Dist::get(name) {
        return respond(name, found.data.into_owned());
    }
    let is_place = name
        .rsplit('/')
        .next()
        .is_none_or(|last| !last.contains('.'));
    match Dist::get("index.html") {
        Some(page) if is_place => respond("index.html", page.data.into_owned()),
        None if is_place => text(StatusCode::OK, NOT_BUILT),
        _ => text(StatusCode::NOT_FOUND, "There is nothing at this path.\n"),
    }
}

fn respond(name: &str, bytes: Vec<u8>) -> Response {
    let mut response = bytes.into_response();
    let kind = mime_guess::from_path(name).first_or_octet_stream();
    let kind = if kind.type_() == "text" {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_string()
    };
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::from_str(&kind) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    // Vite puts a hash of the content into the names below assets/.
    let cache = if name.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CSP),
    );
    response
}

fn text(status: StatusCode, text: &'static str) -> Response {
    let mut response = text.into_response();
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CSP),
    );
    response
}
