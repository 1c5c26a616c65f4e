//! The box's own settings: where things are on this machine. Where the cloud is stands in the
//! factory's signed configuration, see [`crate::papers`].

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where the state lives if nobody says otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/longhaul";
/// Where the settings are looked for if nobody says otherwise; they may be absent.
pub const DEFAULT_CONFIG: &str = "/etc/longhaul/box.toml";
/// Port of the data plane.
const DATA_PORT: u16 = 8420;

/// What can be wrong with the settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("failed to read settings {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no settings file.
    #[error("malformed settings {path}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it, and where.
        source: Box<toml::de::Error>,
    },
}

/// Settings of one machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The TPM, as a TCTI configuration.
    pub tpm_tcti: String,
    /// Where the factory left the box's papers; `factory` in the state directory where absent.
    pub factory_dir: Option<PathBuf>,
    /// Address that customers push to; port 0 takes any.
    pub data_listen: SocketAddr,
    /// Bytes of disk that customers' files may take; nine tenths of what is free where absent.
    pub vault_capacity_bytes: Option<NonZeroU64>,
    /// Where the vault lives; `vault` in the state directory where absent.
    pub vault_dir: Option<PathBuf>,
    /// Write segments past the page cache where the file system allows it.
    pub vault_direct_io: bool,
    /// Bytes of facts that wait for the cloud at the most.
    pub journal_max_bytes: NonZeroU64,
    /// Announce the box by mDNS on the LAN.
    pub mdns: bool,
    /// Longest silence towards the broker before a ping, in seconds: a line that is dead without
    /// saying so is noticed within twice that.
    pub keep_alive_secs: NonZeroU16,
    /// Where the box's own page is served (HTTP, read only); absent where it shall have none.
    pub page_listen: Option<SocketAddr>,
    /// How long a new release may take to prove itself, in seconds, before the one before it runs
    /// again. Long enough for a slow link: it must enrol, connect and have the cloud answer.
    pub trial_secs: NonZeroU32,
    /// The LED that shows the box's state: its name below `/sys/class/leds`, or its folder; absent
    /// where there is none.
    pub status_led: Option<String>,
    /// The interface whose addresses the agent sets; absent where something else sets them: then
    /// the static network of the factory is not the agent's business either, and only a proxy can be set.
    pub network_interface: Option<String>,
    /// The DHCP client that the agent runs while there is no fixed IPv4 address, program and arguments,
    /// with `{interface}` for the interface; empty where something else runs one.
    pub network_dhcp: Vec<String>,
    /// The file that names DNS servers.
    pub network_resolv_conf: PathBuf,
    /// The folder below which USB sticks appear, a folder each: by them the box is registered where it
    /// cannot reach us. Absent where the machine mounts none.
    pub stick_dir: Option<PathBuf>,
    /// How long new network settings may take to reach the cloud, in seconds, before those before
    /// them are in force again.
    pub network_trial_secs: NonZeroU32,
}

impl Default for Config {
    fn default() -> Self {
        const JOURNAL: NonZeroU64 = NonZeroU64::new(64 << 20).expect("not zero");
        const KEEP_ALIVE: NonZeroU16 = NonZeroU16::new(15).expect("not zero");
        const TRIAL: NonZeroU32 = NonZeroU32::new(600).expect("not zero");
        const NETWORK_TRIAL: NonZeroU32 = NonZeroU32::new(120).expect("not zero");
        Self {
            tpm_tcti: "device:/dev/tpmrm0".to_owned(),
            factory_dir: None,
            data_listen: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), DATA_PORT),
            vault_capacity_bytes: None,
            vault_dir: None,
            vault_direct_io: true,
            journal_max_bytes: JOURNAL,
            mdns: true,
            keep_alive_secs: KEEP_ALIVE,
            page_listen: None,
            trial_secs: TRIAL,
            status_led: None,
            network_interface: None,
            network_dhcp: Vec::new(),
            network_resolv_conf: PathBuf::from("/etc/resolv.conf"),
            stick_dir: None,
            network_trial_secs: NETWORK_TRIAL,
        }
    }
}

impl Config {
    /// Reads settings; `None` reads the usual file, which may be absent.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (path, required) = match path {
            Some(path) => (path, true),
            None => (Path::new(DEFAULT_CONFIG), false),
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => String::new(),
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        toml::from_str(&text).map_err(|source| ConfigError::Malformed {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path())).map_err(|e| crate::cloud::chain(&e))
    }

    #[test]
    fn settings_name_their_units_and_have_defaults() {
        let config = load("data_listen = '127.0.0.1:0'\nvault_capacity_bytes = 1000").unwrap();

        assert_eq!(config.data_listen.port(), 0);
        assert_eq!(config.vault_capacity_bytes.map(NonZeroU64::get), Some(1000));
        assert_eq!(config.journal_max_bytes.get(), 64 << 20);
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        let refused = [
            ("data_port = 1", "data_port"),
            ("journal_max_bytes = 0", "journal_max_bytes"),
            ("trial_secs = 0", "trial_secs"),
            ("data_listen = 'nowhere'", "data_listen"),
        ];
        for (text, name) in refused {
            let error = load(text).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }
}
