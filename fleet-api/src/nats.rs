//! What a NATS cluster needs to stand between the processes: a configuration and certificates.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use longhaul_protocol::backbone::{ALL_UP, Role, WORKERS};
use longhaul_protocol::value::UnixMillis;
use longhaul_provisioning::backbone::BackbonePki;
use longhaul_provisioning::ca::{CaError, ServerNames};

/// One server of the cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct NatsServer {
    /// This server's name: the one that stands in its certificate.
    #[arg(long, value_name = "NAME", default_value = "nats-1.example.com")]
    pub host: String,
    /// Where processes connect.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:4222")]
    pub listen: String,
    /// Where the other servers connect.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:6222")]
    pub listen_cluster: String,
    /// `host:port` at which this one reaches each of the other servers; may be repeated.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub route: Vec<String>,
    /// Where /healthz is, for this machine only.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8222")]
    pub health: String,
    /// Folder that holds ca.pem and this server's certificate on its machine.
    #[arg(long, value_name = "DIR", default_value = "/etc/nats")]
    pub certificates: PathBuf,
}

/// Whom to certify.
#[derive(Clone, Debug, clap::Args)]
pub struct NatsCertificates {
    /// Folder of the backbone's authority; made if it is absent. Keep ca.key offline.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Name of a server; may be repeated. `name,address` puts both into its certificate.
    #[arg(long, value_name = "NAME")]
    pub node: Vec<String>,
}

/// The server's configuration, as nats-server reads it.
pub fn server_configuration(server: &NatsServer) -> String {
    let path = |name: &str| quoted(&server.certificates.join(name));
    let certificate = path(&format!("{}.pem", server.host));
    let ca = path("ca.pem");
    let routes: Vec<String> = server
        .route
        .iter()
        .map(|route| format!("    \"nats-route://{route}\""))
        .collect();
    let mut users = String::new();
    for role in Role::ALL {
        user(&mut users, role);
    }
    format!(
        r#"# One server of Longhaul's backbone. Every server has the same file but for its names and routes.
server_name: "{host}"
listen: "{listen}"
# For this machine only: /healthz says whether the server is healthy.
http: "{health}"

# The largest packet that an edge takes is 256 KiB.
max_payload: 256KB
max_pending: 64MB
max_control_line: 4KB
write_deadline: "5s"
ping_interval: "10s"
ping_max: 2

tls {{
  cert_file: {certificate}
  key_file: {certificate}
  ca_file: {ca}
  # A process is the user that the URI in its certificate names.
  verify_and_map: true
  timeout: 5
}}

authorization {{
  users: [
{users}  ]
}}

cluster {{
  name: "longhaul"
  listen: "{cluster}"
  tls {{
    cert_file: {certificate}
    key_file: {certificate}
    ca_file: {ca}
    # Only who has a name of one of the routes is a server of the cluster: a role's certificate has none.
    verify_cert_and_check_known_urls: true
    timeout: 5
  }}
  routes: [
{routes}
  ]
}}
"#,
        host = server.host,
        listen = server.listen,
        health = server.health,
        cluster = server.listen_cluster,
        routes = routes.join("\n"),
    )
}

fn user(out: &mut String, role: Role) {
    let list = |subjects: Vec<String>| {
        let quoted: Vec<String> = subjects.iter().map(|s| format!("\"{s}\"")).collect();
        quoted.join(", ")
    };
    let publishes = role.publishes().iter().map(ToString::to_string).collect();
    let subscribes = role.subscribes().iter();
    let subscribes = subscribes.map(|subject| match *subject {
        // Only together: a subscription of its own would hear everything.
        ALL_UP => format!("{ALL_UP} {WORKERS}"),
        other => other.to_owned(),
    });
    // Writing to a text does not fail.
    let _ = write!(
        out,
        "    {{\n      user: \"{}\"\n      permissions: {{\n        publish: {{ allow: [{}] }}\n        \
         subscribe: {{ allow: [{}] }}\n      }}\n    }}\n",
        role.uri(),
        list(publishes),
        list(subscribes.collect()),
    );
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// Makes the certificates of servers and roles; says which files it wrote.
///
/// # Errors
///
/// [`CaError`] if a name cannot stand in a certificate, or a file cannot be written.
pub fn certificates(asked: &NatsCertificates, now: UnixMillis) -> Result<Vec<PathBuf>, CaError> {
    let pki = BackbonePki::open(&asked.out, now)?;
    let mut written = vec![asked.out.join("ca.pem")];
    for role in Role::ALL {
        let path = asked.out.join(format!("{}.pem", role.as_str()));
        pki.issue_role(role, now)?.save(&path)?;
        written.push(path);
    }
    for node in &asked.node {
        let mut names = ServerNames::default();
        for name in node.split(',') {
            match name.parse() {
                Ok(ip) => names.ips.push(ip),
                Err(_) => names.dns.push(name.to_owned()),
            }
        }
        let first = node.split(',').next().unwrap_or(node);
        let path = asked.out.join(format!("{first}.pem"));
        pki.issue_node(names, now)?.save(&path)?;
        written.push(path);
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_publishes_nothing_to_boxes_and_the_cloud_nothing_from_them() {
        let mut edge = String::new();
        user(&mut edge, Role::Edge);
        let mut cloud = String::new();
        user(&mut cloud, Role::Cloud);
        let line = |text: &str, what: &str| {
            let line = text.lines().find(|l| l.contains(what)).expect("a line");
            line.to_owned()
        };

        assert!(!line(&edge, "publish").contains("fleet.v1.dn"));
        assert!(!line(&cloud, "publish").contains("fleet.v1.up"));
        assert!(line(&cloud, "subscribe").contains("\"fleet.v1.up.*.* cloud\""));
        assert!(!line(&edge, "subscribe").contains("fleet.v1.up"));
    }
}
