//! Configuration: the command line wins over the file, the file over the defaults; unknown keys are
//! refused.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use longhaul_protocol::upload::StoreTrust;

use longhaul_protocol::ticket::Secret;
use longhaul_provisioning::ca::ServerNames;
use serde::Deserialize;

use crate::alerts::address::Reach;
use crate::objects::bucket::Staging;
use crate::sso::SsoConfig;
use crate::sso::grants::{BadRule, Rule};

/// Why a configuration is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("failed to read configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not such a configuration.
    #[error("configuration {path} is wrong: {text}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        text: String,
    },
    /// Packs cannot wait where they should.
    #[error("s3_staging names no place for packs: {0}")]
    Staging(String),
    /// Only half of an object store is configured.
    #[error("an object store needs endpoint or region, access key and secret key: {0} is missing")]
    ObjectStore(&'static str),
    /// Only half of a mail server is configured.
    #[error("mail needs smtp_url and smtp_from: {0} is missing")]
    Mail(&'static str),
    /// Only half of a provider is configured.
    #[error("log-in by a provider needs {0}")]
    Oidc(&'static str),
    /// What a group may do is not said.
    #[error("oidc_grant: {0}")]
    Grant(#[from] BadRule),
    /// What a backbone needs is missing.
    #[error("a backbone needs {0}")]
    Backbone(&'static str),
    /// What a process that does a part of the work needs is missing.
    #[error("--role {role} needs {what}: it shares the work with other processes")]
    Role {
        /// The role.
        role: Role,
        /// What is missing.
        what: &'static str,
    },
    /// Not an address.
    #[error("not an address to listen on: {0:?}; examples: 8443, :8443, 127.0.0.1:8443, [::]:8443")]
    Listen(String),
}

/// What a process does.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    #[default]
    All,
    /// What boxes connect to: their sessions, enrolment, delivery.
    Edge,
    /// What people and programs connect to.
    Api,
    /// What happens behind: takes boxes' messages down, takes packs apart, watches.
    Worker,
}

impl Role {
    /// Whether boxes connect here.
    pub const fn has_edge(self) -> bool {
        matches!(self, Self::All | Self::Edge)
    }

    /// Whether people connect here.
    pub const fn has_api(self) -> bool {
        matches!(self, Self::All | Self::Api)
    }

    /// Whether the work behind is done here.
    pub const fn has_work(self) -> bool {
        matches!(self, Self::All | Self::Worker)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Edge => "edge",
            Self::Api => "api",
            Self::Worker => "worker",
        })
    }
}

/// Where to listen: `8443`, `:8443` or `127.0.0.1:8443`; port 0 picks a free one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenAddress(pub SocketAddr);

impl std::str::FromStr for ListenAddress {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let port = text.strip_prefix(':').unwrap_or(text).parse::<u16>();
        match port {
            Ok(port) => Ok(Self(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))),
            Err(_) => text
                .parse()
                .map(Self)
                .map_err(|_| ConfigError::Listen(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What can be set on the command line, by the environment, or in the file; what is absent has a
/// default.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Folder that holds everything: keys, database, objects.
    #[arg(long, env = "LONGHAUL_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where people and their programs connect (HTTPS). Default: :8443.
    #[arg(long, env = "LONGHAUL_LISTEN_PEOPLE", value_name = "ADDRESS")]
    pub listen_people: Option<ListenAddress>,
    /// Where boxes enrol and fetch (HTTPS, mutual TLS). Default: :8444.
    #[arg(long, env = "LONGHAUL_LISTEN_BOXES", value_name = "ADDRESS")]
    pub listen_boxes: Option<ListenAddress>,
    /// Where boxes hold their sessions (MQTT, mutual TLS). Default: :8883.
    #[arg(long, env = "LONGHAUL_LISTEN_MQTT", value_name = "ADDRESS")]
    pub listen_mqtt: Option<ListenAddress>,
    /// Where the built-in object store is (S3 over HTTPS). Default: :9000.
    #[arg(long, env = "LONGHAUL_LISTEN_S3", value_name = "ADDRESS")]
    pub listen_s3: Option<ListenAddress>,
    /// Name or address under which this cloud is reached; may be repeated, the first is the one
    /// that boxes are given. localhost and this machine's name are always added.
    #[arg(
        long,
        env = "LONGHAUL_PUBLIC_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    #[serde(default)]
    pub public_host: Vec<String>,
    /// Database, for example `postgres://user:password@host/name`. Default: SQLite in the data folder.
    #[arg(
        long,
        env = "LONGHAUL_DATABASE",
        value_name = "URL",
        hide_env_values = true
    )]
    pub database: Option<String>,
    /// What this process does. All but `all` need --backbone, --database and an S3 service.
    #[arg(long, env = "LONGHAUL_ROLE", value_name = "ROLE")]
    pub role: Option<Role>,
    /// Servers of the NATS cluster between several processes, for example `nats://a:4222,nats://b:4222`.
    #[arg(
        long,
        env = "LONGHAUL_BACKBONE",
        value_name = "URLS",
        value_delimiter = ','
    )]
    #[serde(default)]
    pub backbone: Vec<String>,
    /// This process's certificate and key for the backbone, in one PEM file.
    #[arg(long, env = "LONGHAUL_BACKBONE_CERTIFICATE", value_name = "FILE")]
    pub backbone_certificate: Option<PathBuf>,
    /// Certificate of the backbone's authority, PEM.
    #[arg(long, env = "LONGHAUL_BACKBONE_ROOTS", value_name = "FILE")]
    pub backbone_roots: Option<PathBuf>,
    /// Use this S3 service instead of the built-in object store; boxes must reach it too.
    #[arg(long, env = "LONGHAUL_S3_ENDPOINT", value_name = "URL")]
    pub s3_endpoint: Option<String>,
    /// Bucket of the S3 service, or `BUCKET/PREFIX`, in which packs of small files wait to be taken
    /// apart: one that no customer reads. Absent: `longhaul-staging`; at Amazon: small files go one
    /// by one.
    #[arg(long, env = "LONGHAUL_S3_STAGING", value_name = "BUCKET")]
    pub s3_staging: Option<String>,
    /// Region of the S3 service.
    #[arg(long, env = "LONGHAUL_S3_REGION", value_name = "REGION")]
    pub s3_region: Option<String>,
    /// Access key of the S3 service.
    #[arg(long, env = "LONGHAUL_S3_ACCESS_KEY", value_name = "KEY")]
    pub s3_access_key: Option<String>,
    /// Secret key of the S3 service; better given by the environment.
    #[arg(
        long,
        env = "LONGHAUL_S3_SECRET_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub s3_secret_key: Option<String>,
    /// Who vouches for the S3 service's certificate: `public` authorities, as boxes' systems know
    /// them, or the `fleet`'s own root. Default: public.
    #[arg(long, env = "LONGHAUL_S3_TRUST", value_name = "WHO", value_parser = store_trust)]
    pub s3_trust: Option<StoreTrust>,
    /// Mail server for alerts: `smtps://user:password@host` or `smtp://host:587?tls=required`.
    #[arg(
        long,
        env = "LONGHAUL_SMTP_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub smtp_url: Option<String>,
    /// Sender of alerts' mails, for example `Longhaul <fleet@example.com>`.
    #[arg(long, env = "LONGHAUL_SMTP_FROM", value_name = "ADDRESS")]
    pub smtp_from: Option<String>,
    /// Let alerts' webhooks go to private networks, too.
    #[arg(long, env = "LONGHAUL_WEBHOOKS_PRIVATE", num_args = 0..=1, default_missing_value = "true")]
    pub webhooks_private: Option<bool>,
    /// Collector of OpenTelemetry that traces of commands go to by OTLP over HTTP, for example
    /// `http://127.0.0.1:4318`. Default: none, and nothing is traced.
    #[arg(long, env = "LONGHAUL_OTLP", value_name = "URL")]
    pub otlp: Option<String>,
    /// Days that boxes' samples of telemetry are kept as they came. Default: 30.
    #[arg(long, env = "LONGHAUL_TELEMETRY_DAYS", value_name = "DAYS")]
    pub telemetry_days: Option<NonZeroU16>,
    /// Days that telemetry is kept by five minutes. Default: 180.
    #[arg(long, env = "LONGHAUL_TELEMETRY_5M_DAYS", value_name = "DAYS")]
    pub telemetry_5m_days: Option<NonZeroU16>,
    /// Days that telemetry is kept by hours. Default: 1,095.
    #[arg(long, env = "LONGHAUL_TELEMETRY_1H_DAYS", value_name = "DAYS")]
    pub telemetry_1h_days: Option<NonZeroU16>,
    /// Let people log in by an OIDC provider, too: its issuer, as tokens name it.
    #[arg(long, env = "LONGHAUL_OIDC_ISSUER", value_name = "URL")]
    pub oidc_issuer: Option<String>,
    /// What the provider knows this cloud by.
    #[arg(long, env = "LONGHAUL_OIDC_CLIENT_ID", value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// What the provider knows this cloud for; better given by the environment. Absent: a public client.
    #[arg(
        long,
        env = "LONGHAUL_OIDC_CLIENT_SECRET",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub oidc_client_secret: Option<String>,
    /// What the log-in page calls the provider. Default: its host.
    #[arg(long, env = "LONGHAUL_OIDC_NAME", value_name = "NAME")]
    pub oidc_name: Option<String>,
    /// Scopes to ask for beside `openid`. Default: profile, email.
    #[arg(
        long,
        env = "LONGHAUL_OIDC_SCOPES",
        value_name = "SCOPES",
        value_delimiter = ','
    )]
    #[serde(default)]
    pub oidc_scopes: Vec<String>,
    /// Where groups stand in the ID token, for example `realm_access.roles`. Default: groups.
    #[arg(long, env = "LONGHAUL_OIDC_CLAIM", value_name = "PATH")]
    pub oidc_claim: Option<String>,
    /// What a group may do: `ops=operator`, `acme=customer:acme`; may be repeated, the first that names
    /// one of somebody's groups counts. Nobody without such a group is let in.
    #[arg(
        long,
        env = "LONGHAUL_OIDC_GRANT",
        value_name = "GROUP=ROLE",
        value_delimiter = ';'
    )]
    #[serde(default)]
    pub oidc_grant: Vec<String>,
}

fn store_trust(text: &str) -> Result<StoreTrust, String> {
    match text {
        "fleet" => Ok(StoreTrust::Fleet),
        "public" => Ok(StoreTrust::Public),
        _ => Err("it is `public` or `fleet`".to_owned()),
    }
}

/// An S3 service elsewhere.
#[derive(Clone)]
pub struct RemoteStore {
    /// Its URL; absent for Amazon's own.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
    /// Who vouches for its certificate.
    pub trust: StoreTrust,
    /// Where packs wait, if that was said.
    pub staging: Option<Staging>,
}

/// A NATS cluster between the processes.
#[derive(Clone, Debug)]
pub struct Backbone {
    /// Its servers.
    pub servers: Vec<String>,
    /// Certificate chain and key of this process.
    pub certificate: PathBuf,
    /// Whose certificates the servers have.
    pub roots: PathBuf,
}

/// A mail server.
#[derive(Clone)]
pub struct Smtp {
    /// Its URL, with name and password if it wants them.
    pub url: String,
    /// The sender.
    pub from: String,
}

/// How alerts are told.
#[derive(Clone, Default)]
pub struct Notify {
    /// A mail server, if mail is to be sent.
    pub smtp: Option<Smtp>,
    /// Where webhooks may go.
    pub reach: Reach,
}

/// How long telemetry is kept, in milliseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retention {
    /// Samples, as they came.
    pub samples_ms: i64,
    /// By five minutes.
    pub five_ms: i64,
    /// By hours.
    pub hours_ms: i64,
}

/// A complete configuration.
#[derive(Clone)]
pub struct Config {
    /// Folder that holds everything.
    pub data: PathBuf,
    /// The people's port.
    pub listen_people: SocketAddr,
    /// The boxes' port.
    pub listen_boxes: SocketAddr,
    /// The MQTT port.
    pub listen_mqtt: SocketAddr,
    /// The built-in object store's port.
    pub listen_s3: SocketAddr,
    /// Names and addresses under which this cloud is reached; never empty.
    pub public_hosts: Vec<String>,
    /// What this process does.
    pub role: Role,
    /// A NATS cluster; absent where this process does everything.
    pub backbone: Option<Backbone>,
    /// A PostgreSQL URL; absent for SQLite.
    pub database: Option<String>,
    /// An S3 service elsewhere; absent for the built-in one.
    pub remote_store: Option<RemoteStore>,
    /// How alerts are told.
    pub notify: Notify,
    /// Where traces of commands go.
    pub otlp: Option<String>,
    /// How long telemetry is kept.
    pub telemetry: Retention,
    /// Who else vouches for people.
    pub sso: Option<SsoConfig>,
}

impl Settings {
    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|e| ConfigError::Parse {
            path: path.to_owned(),
            text: e.to_string(),
        })
    }

    /// These settings, and `other`'s where these are absent.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            data: self.data.or(other.data),
            listen_people: self.listen_people.or(other.listen_people),
            listen_boxes: self.listen_boxes.or(other.listen_boxes),
            listen_mqtt: self.listen_mqtt.or(other.listen_mqtt),
            listen_s3: self.listen_s3.or(other.listen_s3),
            public_host: if self.public_host.is_empty() {
                other.public_host
            } else {
                self.public_host
            },
            role: self.role.or(other.role),
            backbone: if self.backbone.is_empty() {
                other.backbone
            } else {
                self.backbone
            },
            backbone_certificate: self.backbone_certificate.or(other.backbone_certificate),
            backbone_roots: self.backbone_roots.or(other.backbone_roots),
            database: self.database.or(other.database),
            s3_endpoint: self.s3_endpoint.or(other.s3_endpoint),
            s3_staging: self.s3_staging.or(other.s3_staging),
            s3_region: self.s3_region.or(other.s3_region),
            s3_access_key: self.s3_access_key.or(other.s3_access_key),
            s3_secret_key: self.s3_secret_key.or(other.s3_secret_key),
            s3_trust: self.s3_trust.or(other.s3_trust),
            smtp_url: self.smtp_url.or(other.smtp_url),
            smtp_from: self.smtp_from.or(other.smtp_from),
            webhooks_private: self.webhooks_private.or(other.webhooks_private),
            otlp: self.otlp.or(other.otlp),
            telemetry_days: self.telemetry_days.or(other.telemetry_days),
            telemetry_5m_days: self.telemetry_5m_days.or(other.telemetry_5m_days),
            telemetry_1h_days: self.telemetry_1h_days.or(other.telemetry_1h_days),
            oidc_issuer: self.oidc_issuer.or(other.oidc_issuer),
            oidc_client_id: self.oidc_client_id.or(other.oidc_client_id),
            oidc_client_secret: self.oidc_client_secret.or(other.oidc_client_secret),
            oidc_name: self.oidc_name.or(other.oidc_name),
            oidc_scopes: if self.oidc_scopes.is_empty() {
                other.oidc_scopes
            } else {
                self.oidc_scopes
            },
            oidc_claim: self.oidc_claim.or(other.oidc_claim),
            oidc_grant: if self.oidc_grant.is_empty() {
                other.oidc_grant
            } else {
                self.oidc_grant
            },
        }
    }

    /// Fills in the defaults.
    pub fn complete(self) -> Result<Config, ConfigError> {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let or = |address: Option<ListenAddress>, port| address.map_or(any(port), |a| a.0);
        let remote_store = self.remote_store()?;
        let notify = self.notify()?;
        let telemetry = self.retention();
        let backbone = self.backbone()?;
        let sso = self.sso()?;
        let role = self.role.unwrap_or_default();
        let need = [
            (backbone.is_some(), "--backbone"),
            (self.database.is_some(), "--database"),
            (remote_store.is_some(), "an S3 service (--s3-endpoint)"),
        ];
        let missing = need.into_iter().find(|(there, _)| !there);
        if let (true, Some((_, what))) = (role != Role::All, missing) {
            return Err(ConfigError::Role { role, what });
        }
        let mut public_hosts = self.public_host;
        for always in [
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ]
        .into_iter()
        .chain(machine_name())
        {
            if !public_hosts.contains(&always) {
                public_hosts.push(always);
            }
        }
        Ok(Config {
            data: self.data.unwrap_or_else(|| "longhaul-data".into()),
            listen_people: or(self.listen_people, 8443),
            listen_boxes: or(self.listen_boxes, 8444),
            listen_mqtt: or(self.listen_mqtt, 8883),
            listen_s3: or(self.listen_s3, 9000),
            public_hosts,
            role,
            backbone,
            database: self.database,
            remote_store,
            notify,
            otlp: self.otlp,
            telemetry,
            sso,
        })
    }

    fn backbone(&self) -> Result<Option<Backbone>, ConfigError> {
        let paths = (
            self.backbone_certificate.clone(),
            self.backbone_roots.clone(),
        );
        if self.backbone.is_empty() {
            return match paths {
                (None, None) => Ok(None),
                _ => Err(ConfigError::Backbone("the servers' addresses (--backbone)")),
            };
        }
        if self.database.is_none() {
            return Err(ConfigError::Backbone("a shared database (--database)"));
        }
        let certificate = paths
            .0
            .ok_or(ConfigError::Backbone("--backbone-certificate"))?;
        let roots = paths.1.ok_or(ConfigError::Backbone("--backbone-roots"))?;
        Ok(Some(Backbone {
            servers: self.backbone.clone(),
            certificate,
            roots,
        }))
    }

    fn retention(&self) -> Retention {
        let ms = |days: Option<NonZeroU16>, default: i64| {
            days.map_or(default, |days| i64::from(days.get())) * 86_400_000
        };
        Retention {
            samples_ms: ms(self.telemetry_days, 30),
            five_ms: ms(self.telemetry_5m_days, 180),
            hours_ms: ms(self.telemetry_1h_days, 1095),
        }
    }

    fn sso(&self) -> Result<Option<SsoConfig>, ConfigError> {
        let Some(issuer) = self.oidc_issuer.clone() else {
            let without = self.oidc_client_id.is_none()
                && self.oidc_client_secret.is_none()
                && self.oidc_grant.is_empty();
            return if without {
                Ok(None)
            } else {
                Err(ConfigError::Oidc("its issuer (oidc_issuer)"))
            };
        };
        if !SsoConfig::is_issuer(&issuer) {
            return Err(ConfigError::Oidc(
                "an issuer that is an https URL without query and fragment",
            ));
        }
        let client_id = self.oidc_client_id.clone();
        let client_id = client_id.ok_or(ConfigError::Oidc("oidc_client_id"))?;
        let rules: Result<Vec<Rule>, _> = self.oidc_grant.iter().map(|text| text.parse()).collect();
        let rules = rules?;
        if rules.is_empty() {
            return Err(ConfigError::Oidc(
                "at least one group that may do something (oidc_grant)",
            ));
        }
        let host = || {
            let url = url::Url::parse(&issuer).ok()?;
            url.host_str().map(str::to_owned)
        };
        let name = self.oidc_name.clone().or_else(host).unwrap_or_default();
        let scopes = if self.oidc_scopes.is_empty() {
            vec!["profile".to_owned(), "email".to_owned()]
        } else {
            self.oidc_scopes.clone()
        };
        Ok(Some(SsoConfig {
            issuer,
            client_id,
            client_secret: self.oidc_client_secret.clone().map(Secret),
            name,
            scopes,
            claim: self
                .oidc_claim
                .clone()
                .unwrap_or_else(|| "groups".to_owned()),
            rules,
        }))
    }

    fn notify(&self) -> Result<Notify, ConfigError> {
        let smtp = match (self.smtp_url.clone(), self.smtp_from.clone()) {
            (Some(url), Some(from)) => Some(Smtp { url, from }),
            (None, None) => None,
            (Some(_), None) => return Err(ConfigError::Mail("smtp_from")),
            (None, Some(_)) => return Err(ConfigError::Mail("smtp_url")),
        };
        Ok(Notify {
            smtp,
            reach: Reach {
                private: self.webhooks_private.unwrap_or_default(),
                loopback: false,
            },
        })
    }

    fn remote_store(&self) -> Result<Option<RemoteStore>, ConfigError> {
        let given = [
            self.s3_endpoint.is_some(),
            self.s3_access_key.is_some(),
            self.s3_secret_key.is_some(),
            self.s3_region.is_some(),
            self.s3_staging.is_some(),
        ];
        if !given.contains(&true) {
            return Ok(None);
        }
        if self.s3_endpoint.is_none() && self.s3_region.is_none() {
            return Err(ConfigError::ObjectStore("s3_endpoint or s3_region"));
        }
        let need =
            |value: &Option<String>, name| value.clone().ok_or(ConfigError::ObjectStore(name));
        Ok(Some(RemoteStore {
            endpoint: self.s3_endpoint.clone(),
            region: self
                .s3_region
                .clone()
                .unwrap_or_else(|| "us-east-1".to_owned()),
            access_key: need(&self.s3_access_key, "s3_access_key")?,
            secret_key: need(&self.s3_secret_key, "s3_secret_key")?,
            trust: self.s3_trust.unwrap_or(StoreTrust::Public),
            staging: self
                .s3_staging
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(ConfigError::Staging)?,
        }))
    }
}

impl Config {
    /// The host that boxes and people are given.
    pub fn host(&self) -> &str {
        self.public_hosts
            .first()
            .map_or("localhost", String::as_str)
    }

    /// The host as it stands in a URL.
    pub fn url_host(&self) -> String {
        match self.host().parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.host().to_owned(),
        }
    }

    /// What the servers' certificate is for.
    pub fn server_names(&self) -> ServerNames {
        let mut names = ServerNames::default();
        for host in &self.public_hosts {
            match host.parse::<IpAddr>() {
                Ok(ip) => names.ips.push(ip),
                Err(_) => names.dns.push(host.clone()),
            }
        }
        names
    }
}

/// This machine's name, if it is one that a certificate can carry.
fn machine_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    // Boxes have names below `.local`; no server of the cloud may.
    let usable = name.rsplit('.').next() != Some("local")
        && rustls_pki_types::DnsName::try_from(name).is_ok();
    usable.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_configured_is_a_complete_configuration() {
        let config = Settings::default().complete().expect("complete");

        assert_eq!(config.host(), "localhost");
        assert_eq!(config.listen_people.to_string(), "0.0.0.0:8443");
        assert!(config.remote_store.is_none());
        assert!(
            config
                .server_names()
                .ips
                .contains(&IpAddr::V4(Ipv4Addr::LOCALHOST))
        );
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file: Settings = toml::from_str(
            "listen_boxes = \":1\"\nlisten_mqtt = \"127.0.0.1:2\"\npublic_host = [\"a.example\"]",
        )
        .expect("a file");
        let line = Settings {
            listen_boxes: Some(":9".parse().expect("an address")),
            ..Settings::default()
        };

        let config = line.or(file).complete().expect("complete");

        assert_eq!(config.listen_boxes.to_string(), "0.0.0.0:9");
        assert_eq!(config.listen_mqtt.to_string(), "127.0.0.1:2");
        assert_eq!(config.host(), "a.example");
    }

    #[test]
    fn a_part_of_the_work_needs_what_the_parts_share() {
        let mut settings = Settings {
            role: Some(Role::Worker),
            ..Settings::default()
        };
        let what = |settings: &Settings| match settings.clone().complete() {
            Err(error) => error.to_string(),
            Ok(_) => String::new(),
        };
        assert!(what(&settings).contains("--backbone"));
        settings.backbone = vec!["nats://a:4222".to_owned()];
        assert!(what(&settings).contains("--database"));
        settings.database = Some("postgres://db".to_owned());
        assert!(what(&settings).contains("--backbone-certificate"));
        settings.backbone_certificate = Some("cloud.pem".into());
        settings.backbone_roots = Some("ca.pem".into());
        assert!(what(&settings).contains("S3"));
        settings.role = None;
        assert_eq!(what(&settings), "");
    }

    #[test]
    fn a_provider_is_configured_whole_or_not_at_all() {
        let file = |text: &str| {
            let settings: Settings = toml::from_str(text).expect("a file");
            settings.complete().map(|config| config.sso)
        };
        let whole = "oidc_issuer = \"https://id.example/realms/a\"\noidc_client_id = \"longhaul\"\n\
                     oidc_grant = [\"ops=operator\", \"acme=customer:acme\"]";
        let sso = file(whole).expect("whole").expect("a provider");
        assert_eq!(
            (sso.name.as_str(), sso.claim.as_str()),
            ("id.example", "groups")
        );
        assert!(file("").expect("none").is_none());
        for (from, to) in [
            ("oidc_client_id = \"longhaul\"", ""),
            ("https://", "http://"),
            ("realms/a", "realms?a"),
            ("oidc_issuer = \"https://id.example/realms/a\"", ""),
            ("ops=operator", "ops=root"),
            ("[\"ops=operator\", \"acme=customer:acme\"]", "[]"),
        ] {
            assert!(file(&whole.replace(from, to)).is_err(), "{from} -> {to}");
        }
    }

    #[test]
    fn unknown_keys_and_half_an_object_store_are_refused() {
        assert!(toml::from_str::<Settings>("listen_poeple = \":1\"").is_err());
        assert!(toml::from_str::<Settings>("listen_people = \"nowhere\"").is_err());
        let half: Settings = toml::from_str("s3_endpoint = \"https://s3\"").expect("a file");

        assert!(matches!(
            half.complete(),
            Err(ConfigError::ObjectStore("s3_access_key"))
        ));
    }
}
