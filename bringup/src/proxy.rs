//! The customer's HTTP proxy: the one way out of some networks, for HTTPS and MQTT alike.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::RwLock;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::disk::{self, DiskError};

/// The longest address of a proxy, in bytes.
const MAX_URL: usize = 1024;

/// One proxy, and how the box logs in there.
#[derive(Clone, Eq, PartialEq)]
pub struct Proxy {
    /// Its host name or address.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// Name and password, where it wants them.
    pub login: Option<(String, String)>,
    url: Url,
}

/// Why a text names no proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a proxy: expected http://[user:password@]host:port")]
pub struct NotAProxy;

impl FromStr for Proxy {
    type Err = NotAProxy;

    fn from_str(text: &str) -> Result<Self, NotAProxy> {
        if text.len() > MAX_URL {
            return Err(NotAProxy);
        }
        let url: Url = text.parse().map_err(|_| NotAProxy)?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let (Some(host), "http", "/" | "") = (host, url.scheme(), url.path()) else {
            return Err(NotAProxy);
        };
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = (!url.username().is_empty()).then(|| {
            let password = url.password().unwrap_or_default();
            (decode(url.username()), decode(password))
        });
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default().ok_or(NotAProxy)?,
            login,
            url,
        })
    }
}

/// Without the password: this is shown to everybody on the LAN.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl Proxy {
    /// The request that opens a way to `host` (RFC 9110 section 9.3.6).
    pub fn connect_request(&self, host: &str, port: u16) -> String {
        let at = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let login = self
            .login
            .as_ref()
            .map_or_else(String::new, |(user, password)| {
                let pair = STANDARD.encode(format!("{user}:{password}"));
                format!("proxy-authorization: Basic {pair}\r\n")
            });
        format!("CONNECT {at} HTTP/1.1\r\nhost: {at}\r\n{login}\r\n")
    }
}

/// What was set on this box itself, as it lies in the state directory.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Absent: what the factory says. Empty: none, whatever the factory says.
    proxy: Option<String>,
}

/// What the box's network settings say.
#[derive(Clone, Debug, Default)]
enum Preferred {
    /// Nothing.
    #[default]
    Nothing,
    /// That there is none.
    Direct,
    /// This one.
    Through(Proxy),
}

/// The proxy in force; clones follow each other.
#[derive(Clone, Debug)]
pub struct ProxySetting {
    path: PathBuf,
    /// What the factory's signed configuration says.
    factory: Option<Proxy>,
    /// Goes before everything else.
    preferred: Arc<RwLock<Preferred>>,
    current: Arc<RwLock<Option<Proxy>>>,
}

impl ProxySetting {
    /// What was set on this box, else `factory`'s.
    pub fn open(state: &Path, factory: Option<&str>) -> Self {
        let factory = factory.and_then(|text| {
            let parsed = text.parse();
            parsed
                .inspect_err(|error| tracing::warn!(%error, "the factory's proxy is left out"))
                .ok()
        });
        let setting = Self {
            path: path(state),
            factory,
            preferred: Arc::default(),
            current: Arc::default(),
        };
        setting.reload();
        setting
    }

    /// No proxy, and none that could be set: for tests and probes.
    pub fn none() -> Self {
        Self {
            path: PathBuf::new(),
            factory: None,
            preferred: Arc::default(),
            current: Arc::default(),
        }
    }

    /// This proxy, or none, for good.
    pub fn fixed(proxy: Option<Proxy>) -> Self {
        Self {
            path: PathBuf::new(),
            factory: proxy.clone(),
            preferred: Arc::default(),
            current: Arc::new(RwLock::new(proxy)),
        }
    }

    /// The proxy now.
    pub fn current(&self) -> Option<Proxy> {
        self.current.read().clone()
    }

    /// What the box's network settings say: nothing, no proxy (an empty text), or this one.
    ///
    /// # Errors
    ///
    /// [`NotAProxy`]; then everything stays as it is.
    pub fn prefer(&self, proxy: Option<&str>) -> Result<(), NotAProxy> {
        let preferred = match proxy {
            None => Preferred::Nothing,
            Some("") => Preferred::Direct,
            Some(text) => Preferred::Through(text.parse()?),
        };
        *self.preferred.write() = preferred;
        self.reload();
        Ok(())
    }

    /// Looks at the file again; whether the proxy is another one now.
    pub fn reload(&self) -> bool {
        let kept = disk::read_json::<Kept>(&self.path).unwrap_or_else(|error| {
            tracing::warn!(%error, "the proxy's setting is unreadable and left out");
            None
        });
        let here = kept.and_then(|kept| kept.proxy);
        let new = match (self.preferred.read().clone(), here) {
            (Preferred::Through(proxy), _) => Some(proxy),
            (Preferred::Direct, _) => None,
            (Preferred::Nothing, Some(text)) if text.is_empty() => None,
            (Preferred::Nothing, Some(text)) => text.parse().ok(),
            (Preferred::Nothing, None) => self.factory.clone(),
        };
        let mut current = self.current.write();
        let changed = *current != new;
        *current = new;
        changed
    }

    /// For HTTP clients: asks for the proxy at each request, so that it changes without a restart.
    pub fn for_http(&self) -> reqwest::Proxy {
        let setting = self.clone();
        reqwest::Proxy::custom(move |_| setting.current().map(|proxy| proxy.url))
    }
}

fn path(state: &Path) -> PathBuf {
    state.join("proxy.json")
}

/// Sets the proxy of the box with this state directory; `None` goes back to the factory's. The
/// running agent takes it up within seconds.
pub fn set(state: &Path, proxy: Option<&Proxy>) -> Result<(), DiskError> {
    let proxy = proxy.map(|proxy| proxy.url.to_string());
    disk::write_json(&path(state), &Kept { proxy })
}

/// Sets that the box with this state directory uses none, whatever the factory says.
pub fn set_none(state: &Path) -> Result<(), DiskError> {
    let proxy = Some(String::new());
    disk::write_json(&path(state), &Kept { proxy })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_proxy_logs_in_and_keeps_its_password_to_itself() {
        let proxy: Proxy = "http://ada:s%20x@proxy.example:3128".parse().unwrap();

        let asked = proxy.connect_request("cloud.example", 443);

        assert!(
            asked.starts_with("CONNECT cloud.example:443 HTTP/1.1\r\n"),
            "{asked}"
        );
        assert!(asked.contains(&STANDARD.encode("ada:s x")), "{asked}");
        assert_eq!(proxy.to_string(), "proxy.example:3128");
        assert!(!format!("{proxy:?}").contains("s x"));
        for other in [
            "",
            "proxy",
            "https://proxy:1",
            "http://",
            "http://proxy:1/path",
            "ftp://a:1",
        ] {
            assert_eq!(other.parse::<Proxy>(), Err(NotAProxy), "{other}");
        }
    }

    #[test]
    fn what_is_set_here_wins_over_the_factory_and_is_taken_up() {
        let state = tempfile::tempdir().unwrap();
        let setting = ProxySetting::open(state.path(), Some("http://factory:1"));
        let follower = setting.clone();
        let at = |setting: &ProxySetting| setting.current().map(|p| p.to_string());
        assert_eq!(at(&setting).as_deref(), Some("factory:1"));

        set(state.path(), Some(&"http://here:2".parse().unwrap())).unwrap();
        assert!(setting.reload());
        assert_eq!(at(&follower).as_deref(), Some("here:2"));
        set_none(state.path()).unwrap();
        assert!(setting.reload());
        assert_eq!(at(&follower), None);
        set(state.path(), None).unwrap();
        assert!(setting.reload());
        assert_eq!(at(&follower).as_deref(), Some("factory:1"));
        setting.prefer(Some("http://settings:3")).unwrap();
        assert_eq!(at(&follower).as_deref(), Some("settings:3"));
        assert!(setting.prefer(Some("nowhere")).is_err());
        setting.prefer(Some("")).unwrap();
        assert_eq!(at(&follower), None);
        setting.prefer(None).unwrap();
        assert_eq!(at(&follower).as_deref(), Some("factory:1"));
        std::fs::write(path(state.path()), b"\xff").unwrap();
        assert!(!setting.reload());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<Proxy>();
        }
    }
}
