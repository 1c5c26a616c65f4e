//! Errors and dates as text; and how a static binary looks names up.

use longhaul_protocol::value::UnixMillis;

/// An error with all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A date of HTTP (RFC 9110 section 5.6.7).
pub fn parse_date(text: &str) -> Option<UnixMillis> {
    jiff::fmt::rfc2822::parse(text)
        .ok()
        .map(|date| UnixMillis(date.timestamp().as_millisecond()))
}

/// Looks names up by what lies in this binary, files and DNS: what a machine's configuration names
/// beside them are libraries of its own C library, which a static binary cannot load.
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
#[expect(
    unsafe_code,
    reason = "a function of the C library that has no other way in"
)]
pub fn own_resolver() {
    unsafe extern "C" {
        fn __nss_configure_lookup(database: *const u8, sources: *const u8) -> i32;
    }
    // SAFETY: both texts end with a NUL, and it is called before there is another thread.
    let _ =
        unsafe { __nss_configure_lookup(c"hosts".as_ptr().cast(), c"files dns".as_ptr().cast()) };
}

/// Looks names up as the machine does.
#[cfg(not(all(target_env = "gnu", target_feature = "crt-static")))]
pub const fn own_resolver() {}
