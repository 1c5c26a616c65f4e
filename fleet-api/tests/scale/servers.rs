//! A NATS cluster, configured by what the program prints.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Process;
use crate::until;

const NODES: usize = 3;

pub struct Servers {
    nodes: Vec<Process>,
    folder: PathBuf,
    ports: Vec<[u16; 3]>,
}

impl Servers {
    /// Three servers that know each other; their certificates are in `folder`.
    pub async fn start(folder: &Path) -> Self {
        let made = cloud(&[
            "config",
            "nats-certificates",
            "--node=localhost,127.0.0.1",
            &format!("--out={}", folder.display()),
        ]);
        assert!(made.contains("edge.pem"), "{made}");
        loop {
            let mut servers = Self {
                nodes: Vec::new(),
                folder: folder.to_owned(),
                ports: free_ports(),
            };
            for number in 0..NODES {
                servers.nodes.push(servers.node(number));
            }
            if servers.are_healthy().await {
                return servers;
            }
            // Somebody else was faster at a port: once more, with others.
        }
    }

    fn node(&self, number: usize) -> Process {
        let [clients, cluster, health] = self.ports[number];
        let mut arguments = vec![
            "config".to_owned(),
            "nats".to_owned(),
            "--host=localhost".to_owned(),
            format!("--listen=127.0.0.1:{clients}"),
            format!("--listen-cluster=127.0.0.1:{cluster}"),
            format!("--health=127.0.0.1:{health}"),
            format!("--certificates={}", self.folder.display()),
        ];
        let others = self.ports.iter().enumerate().filter(|(n, _)| *n != number);
        arguments.extend(others.map(|(_, [_, cluster, _])| format!("--route=localhost:{cluster}")));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // Each server has a name of its own; the certificate here is for all of them.
        let text = cloud(&arguments).replace(
            "server_name: \"localhost\"",
            &format!("server_name: \"nats-{number}\""),
        );
        let path = self.folder.join(format!("nats-{number}.conf"));
        std::fs::write(&path, text).expect("written");
        let log = self.folder.join(format!("nats-{number}.log"));
        let arguments = ["-c".to_owned(), path.display().to_string()];
        Process::start(Path::new("nats-server"), &arguments, &log)
    }

    /// Whether every server runs and has found the others; `false` if one has ended.
    async fn are_healthy(&mut self) -> bool {
        until("the servers find each other", || {
            let ended = self.nodes.iter_mut().any(|node| !node.is_running());
            let told = |node: &Process| node.text().matches("Route connection created").count();
            let joined = self.nodes.iter().all(|node| told(node) + 1 >= NODES);
            let seen = self.nodes.iter().map(Process::text).collect::<String>();
            async move {
                match (ended, joined) {
                    (true, _) => Ok(false),
                    (false, true) => Ok(true),
                    (false, false) => Err(seen),
                }
            }
        })
        .await
    }

    pub fn urls(&self) -> Vec<String> {
        let ports = self.ports.iter();
        ports
            .map(|p| format!("nats://localhost:{}", p[0]))
            .collect()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn kill(&mut self, number: usize) {
        self.nodes[number].kill();
    }

    pub fn restart(&mut self, number: usize) {
        self.nodes[number] = self.node(number);
    }
}

/// Runs the program to its end.
fn cloud(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_longhaul-cloud"))
        .args(arguments)
        .output()
        .expect("run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).expect("text")
}

fn free_ports() -> Vec<[u16; 3]> {
    // All open at once, so that no two are the same.
    let open = |()| TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listeners: Vec<TcpListener> = std::iter::repeat_n((), NODES * 3).map(open).collect();
    let port = |l: &TcpListener| l.local_addr().expect("an address").port();
    let ports: Vec<u16> = listeners.iter().map(port).collect();
    ports.chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect()
}
