//! A customer's network in network namespaces, with everything that can be wrong with it.
//!
//! ```text
//!  box ──cable── router ──line── internet: cloud, resolver, beacon, others' servers, proxy, portal ..
//! ```
//!
//! The internet is the namespace of the thread that made the lab; box and router have one each, held
//! by a process that dies with this one, and the kernel takes a namespace back with its last process:
//! nothing is left behind, also by `kill -9`. Needs root.

mod carried;
mod faults;
mod fixed;
mod names;
mod namespace;
mod servers;
mod walk;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use carried::DIRECT;
pub use faults::{Expect, Fault};
pub use namespace::{LabError, Namespace, enter};
pub use walk::walk;

use crate::operator::Operator;
use crate::process::Process;
use crate::system::{CloudReady, Programs, Stage, SystemError};
use crate::wait::until;
use names::Names;
use namespace::{Shell, sh};
use servers::Servers;

/// The cloud's name.
const CLOUD: &str = "cloud.longhaul.test";
/// Where the beacon is.
const STATUS: &str = "status.longhaul.test";
const CLOUD_V4: &str = "203.0.113.10";
const STATUS_V4: &str = "203.0.113.20";
const TARGET: &str = "203.0.113.30:4433";
const PORTAL_V4: &str = "203.0.113.40";
const IMPOSTOR: &str = "203.0.113.50:8443";
const RESOLVER_V4: &str = "203.0.113.53";
const PROXY_V4: &str = "203.0.113.60";
const PROXY_PORT: u16 = 3128;
const SLOW: &str = "203.0.113.70:4443";
const CLOUD_V6: &str = "2001:db8:ffff::10";
const RESOLVER_V6: &str = "2001:db8:ffff::53";
/// Bytes of the box's vault: the data plane is not what is looked at here.
const VAULT_BYTES: u64 = 256 << 20;
/// Longest time for a fault to be named, and for the box to come back; it should be far less.
const PATIENCE: Duration = Duration::from_secs(90);

/// A box in a customer's network.
pub struct Lab {
    stage: Stage,
    router: Namespace,
    inside: Namespace,
    names: Names,
    servers: Servers,
    cloud: Option<Process>,
    ready: CloudReady,
    operator: Operator,
    box_id: String,
    tcti: String,
    device: Option<Process>,
    lease_server: Option<Process>,
    lease_client: Option<Process>,
    v6_only: bool,
    /// The agent sets the addresses, and tries others for so many seconds.
    fixed: Option<u32>,
    _tpm: Process,
}

/// How one fault went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which fault.
    pub fault: Fault,
    /// From the fault, or from the plug, to the right code.
    pub diagnosed: Duration,
    /// From the end of the fault to a box that is online.
    pub recovered: Duration,
}

impl Lab {
    /// Builds the network, starts cloud and box; the box is not in the cloud's inventory yet.
    ///
    /// The calling thread must be in a network namespace of its own, see [`enter`].
    ///
    /// # Errors
    ///
    /// [`SystemError`], also where something that the lab needs is not installed.
    pub async fn start(folder: &Path, programs: Programs) -> Result<Self, SystemError> {
        Self::start_as(folder, programs, None).await
    }

    async fn start_as(
        folder: &Path,
        programs: Programs,
        fixed: Option<u32>,
    ) -> Result<Self, SystemError> {
        let mut stage = Stage::new(folder, programs)?;
        let resolv = stage.path("resolv.conf");
        std::fs::write(&resolv, format!("nameserver {RESOLVER_V4}\n"))
            .map_err(|source| file(&resolv, source))?;
        let router = Namespace::hold(&stage, "router", "exec sleep infinity")?;
        let bind = format!(
            "mount --bind {} /etc/resolv.conf && exec sleep infinity",
            resolv.display()
        );
        let inside = Namespace::hold(&stage, "inside", &bind)?;
        lay_lines(&router, &inside).await?;
        let names = Names::serve().await?;
        let (cloud, ready) = start_cloud(&stage, None).await?;
        let beacon = stage.path("beacon.jws");
        sign_beacon(&stage, &ready, "well").await?;
        let servers = Servers::serve(beacon).await?;
        let (tpm, tcti) = inside_tpm(&mut stage, &inside).await?;
        let mut extra = vec![
            format!("--beacon=http://{STATUS}/beacon"),
            format!("--reach={TARGET}"),
        ];
        if fixed.is_some() {
            extra.extend(fixed::PREPARED.map(str::to_owned));
        }
        let box_id = stage
            .clone()
            .within(inside.entry())
            .make_box_with(&ready, &tcti, None, &extra)
            .await?;
        let (name, password) = stage.first_admin()?;
        let url = format!("https://127.0.0.1:{}", ready.people_port);
        let operator = Operator::log_in(&url, &ready.root_pem, &name, &password).await?;
        let mut lab = Self {
            stage,
            router,
            inside,
            names,
            servers,
            cloud: Some(cloud),
            ready,
            operator,
            box_id,
            tcti,
            device: None,
            lease_server: None,
            lease_client: None,
            v6_only: false,
            fixed,
            _tpm: tpm,
        };
        if fixed.is_none() {
            lab.serve_leases(true)?;
        }
        lab.start_box()?;
        Ok(lab)
    }

    /// Starts the agent, whose clock a file can set wrong.
    fn start_box(&mut self) -> Result<(), SystemError> {
        let settings = self.stage.path("box.toml");
        let text = format!(
            "tpm_tcti = {:?}\ndata_listen = \"[::]:8420\"\npage_listen = \"[::]:80\"\n\
             vault_capacity_bytes = {VAULT_BYTES}\nkeep_alive_secs = 5\nstick_dir = \"{}\"\n{}",
            self.tcti,
            self.stage.path("sticks").display(),
            self.fixed.map_or_else(String::new, |secs| format!(
                "network_interface = \"eth0\"\nnetwork_trial_secs = {secs}\n"
            )),
        );
        std::fs::write(&settings, text).map_err(|source| file(&settings, source))?;
        self.set_clock("+0")?;
        let preload = format!(
            "exec env LD_PRELOAD=libfaketimeMT.so.1 LD_LIBRARY_PATH=/usr/lib/{}-linux-gnu/faketime \
             FAKETIME_TIMESTAMP_FILE={} FAKETIME_CACHE_DURATION=1 FAKETIME_DISABLE_SHM=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \
             DONT_FAKE_MONOTONIC=1 {} --state {} --config {} run",
            std::env::consts::ARCH,
            self.stage.path("faketime").display(),
            self.stage.program("longhaul-box").display(),
            self.stage.path("box").display(),
            settings.display(),
        );
        let device = self.stage.clone().within(self.inside.entry()).start_path(
            "box",
            Path::new("/bin/sh"),
            ["-c", &preload],
        )?;
        self.device = Some(device);
        Ok(())
    }

    /// Pulls the box's power plug, and puts it back.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn restart_box(&mut self) -> Result<(), SystemError> {
        if let Some(mut device) = self.device.take() {
            device.kill().await?;
        }
        self.start_box()
    }

    /// Another lab in place of this one, with a box that is online.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn start_over(self, folder: &Path) -> Result<Self, SystemError> {
        let programs = Programs::find()?;
        // Its processes end with it, and with them its namespaces; this thread's own addresses stay.
        drop(self);
        sh("ip link del wan0 || true").await?;
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(|source| file(folder, source))?;
        }
        let mut lab = Box::pin(Self::start(folder, programs)).await?;
        come_up(&mut lab).await?;
        Ok(lab)
    }

    fn set_clock(&self, offset: &str) -> Result<(), SystemError> {
        let path = self.stage.path("faketime");
        std::fs::write(&path, format!("{offset}\n")).map_err(|source| file(&path, source))
    }

    /// The box's name.
    pub fn box_id(&self) -> &str {
        &self.box_id
    }

    /// Where the box's own page is, from the router's side of the cable.
    pub fn inside(&self) -> &Namespace {
        &self.inside
    }

    /// Takes the box into the inventory.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn admit(&self) -> Result<(), SystemError> {
        self.stage.import(&self.operator, &self.box_id).await
    }

    /// Pulls the cable; the box loses its address as its system would take it.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn unplug(&mut self) -> Result<(), SystemError> {
        if let Some(mut client) = self.lease_client.take() {
            client.kill().await?;
        }
        self.router.run("ip link set lan0 down").await?;
        self.inside.run("ip addr flush dev eth0").await
    }

    /// Plugs it in; the box's system asks for an address.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn plug(&mut self) -> Result<(), SystemError> {
        let v6 = i32::from(!self.v6_only);
        self.inside
            .run(&format!(
                "echo {v6} > /proc/sys/net/ipv6/conf/eth0/disable_ipv6"
            ))
            .await?;
        self.router.run("ip link set lan0 up").await?;
        let resolver = if self.v6_only {
            RESOLVER_V6
        } else {
            RESOLVER_V4
        };
        self.inside
            .run(&format!("echo nameserver {resolver} > /etc/resolv.conf"))
            .await?;
        if self.v6_only {
            return Ok(());
        }
        let script = self.stage.path("lease.sh");
        std::fs::write(&script, LEASE).map_err(|source| file(&script, source))?;
        sh(&format!("chmod +x {}", script.display())).await?;
        let client = self.stage.clone().within(self.inside.entry()).start_path(
            "lease-client",
            Path::new("udhcpc"),
            [
                "-f", "-B", "-i", "eth0", "-t", "2", "-T", "1", "-A", "1", "-s",
            ]
            .into_iter()
            .map(str::to_owned)
            .chain([script.display().to_string()]),
        )?;
        self.lease_client = Some(client);
        Ok(())
    }

    /// Gives out addresses: IPv4 by DHCP, with a router or without; or IPv6 by announcement.
    fn serve_leases(&mut self, router: bool) -> Result<(), SystemError> {
        let range = if self.v6_only {
            vec![
                "--enable-ra".to_owned(),
                "--dhcp-range=2001:db8:1::,ra-only".to_owned(),
            ]
        } else {
            // Without a value the option is left out, which else names the server itself.
            let option = if router { "3,192.168.77.1" } else { "3" };
            vec![
                "--dhcp-range=192.168.77.100,192.168.77.100,255.255.255.0,1h".to_owned(),
                format!("--dhcp-option={option}"),
                format!("--dhcp-option=6,{RESOLVER_V4}"),
            ]
        };
        let leases = self.stage.path("leases");
        let fixed = [
            "--keep-in-foreground".to_owned(),
            "--conf-file=/dev/null".to_owned(),
            "--port=0".to_owned(),
            "--interface=lan0".to_owned(),
            "--no-ping".to_owned(),
            "--dhcp-authoritative".to_owned(),
            "--user=root".to_owned(),
            "--pid-file".to_owned(),
            format!("--dhcp-leasefile={}", leases.display()),
        ];
        let server = self.stage.clone().within(self.router.entry()).start_path(
            "lease-server",
            Path::new("dnsmasq"),
            fixed.into_iter().chain(range),
        )?;
        self.lease_server = Some(server);
        Ok(())
    }

    async fn stop_leases(&mut self) -> Result<(), SystemError> {
        if let Some(mut server) = self.lease_server.take() {
            server.kill().await?;
        }
        Ok(())
    }

    /// The box's status, as it says at its console.
    ///
    /// # Errors
    ///
    /// A text where it does not answer.
    pub async fn status(&mut self) -> Result<Value, String> {
        if let Some(device) = &mut self.device {
            device.check().map_err(|e| e.to_string())?;
        }
        let socket = self.stage.path("box/run/status.sock");
        ask(&socket).await.map_err(|e| e.to_string())
    }

    /// What a person would read off the box: the failing rung's code, or that all is well.
    ///
    /// # Errors
    ///
    /// A text where it does not answer.
    pub async fn reading(&mut self) -> Result<Reading, String> {
        let status = self.status().await?;
        Ok(Reading::of(&status["lan"]["rungs"]))
    }

    /// Waits until the box shows `wanted`; how long that took.
    ///
    /// # Errors
    ///
    /// [`SystemError`] with what it showed instead.
    pub async fn shows(&mut self, wanted: &Reading) -> Result<Duration, SystemError> {
        let begun = Instant::now();
        let what = format!("the box to show {wanted:?}");
        let mut last = String::new();
        while begun.elapsed() < PATIENCE {
            match self.status().await {
                Ok(status) => {
                    let rungs = &status["lan"]["rungs"];
                    if Reading::of(rungs) == *wanted {
                        return Ok(begun.elapsed());
                    }
                    last = rungs.to_string();
                }
                Err(text) => last = text,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(crate::wait::TimedOut {
            what,
            seen: last,
            waited: begun.elapsed(),
        }
        .into())
    }

    /// Brings the fault about, waits for its code, lifts it, waits for the box to come back.
    ///
    /// # Errors
    ///
    /// [`SystemError`] where the box shows something else, or does not come back.
    pub async fn suffer(&mut self, fault: Fault) -> Result<Outcome, SystemError> {
        fault.apply(self).await?;
        let diagnosed = self.shows(&fault.expect().reading()).await?;
        fault.check(self).await?;
        fault.lift(self).await?;
        let recovered = self.shows(&Reading::Well).await?;
        fault.tidy(self).await?;
        Ok(Outcome {
            fault,
            diagnosed,
            recovered,
        })
    }

    /// As [`Lab::suffer`], but box and cloud are killed while the fault lasts.
    ///
    /// # Errors
    ///
    /// [`SystemError`] where the box shows something else, or does not come back.
    pub async fn suffer_killed(&mut self, fault: Fault) -> Result<Outcome, SystemError> {
        fault.apply(self).await?;
        let diagnosed = self.shows(&fault.expect().reading()).await?;
        self.restart_box().await?;
        self.kill_cloud().await?;
        self.resume_cloud().await?;
        self.shows(&fault.expect().reading()).await?;
        fault.lift(self).await?;
        let recovered = self.shows(&Reading::Well).await?;
        fault.tidy(self).await?;
        Ok(Outcome {
            fault,
            diagnosed,
            recovered,
        })
    }

    /// As [`Lab::suffer`]; `look` looks while the fault lasts.
    ///
    /// # Errors
    ///
    /// [`SystemError`] where the box shows something else, or does not come back.
    pub async fn suffer_beside(
        &mut self,
        fault: Fault,
        look: impl AsyncFnOnce(&Self),
    ) -> Result<(), SystemError> {
        fault.apply(self).await?;
        self.shows(&fault.expect().reading()).await?;
        fault.check(self).await?;
        look(self).await;
        fault.lift(self).await?;
        self.shows(&Reading::Well).await?;
        fault.tidy(self).await
    }

    /// Makes an order and a probe's ticket for it; the ticket's file.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn probe_ticket(&self, order: &str) -> Result<PathBuf, SystemError> {
        let body = json!({ "id": order, "customer": "C", "bucket": format!("bucket-{order}") });
        self.operator.post("/v1/orders", &body).await?;
        let hints = json!({ "beacons": [format!("http://{STATUS}/beacon")], "reach": [TARGET] });
        let path = format!("/v1/orders/{order}/probe-tickets");
        let ticket = self.operator.post(&path, &hints).await?;
        let path = self.stage.path("probe-ticket.json");
        std::fs::write(&path, ticket.to_string()).map_err(|source| file(&path, source))?;
        Ok(path)
    }

    /// What a probe reports from the customer's network, and how it ends.
    ///
    /// # Errors
    ///
    /// [`SystemError`] where it ends otherwise than by 0 or 1.
    pub async fn probe(&self, ticket: &Path, options: &str) -> Result<(i32, Value), SystemError> {
        let program = self.stage.program("longhaul-probe");
        let (program, ticket) = (program.display(), ticket.display());
        let out = self.stage.path("");
        let out = out.display();
        let line = format!(
            "code=0; {program} {ticket} --json --out {out} {options} || code=$?; echo $code"
        );
        let said = self.inside.output(&line).await?;
        let odd = |what| SystemError::Unexpected {
            what,
            text: said.clone(),
        };
        let (report, code) = said
            .trim_end()
            .rsplit_once('\n')
            .ok_or_else(|| odd("a probe's report"))?;
        let code = code.parse().map_err(|_| odd("how a probe ends"))?;
        let report = serde_json::from_str(report).map_err(|_| odd("a probe's report"))?;
        Ok((code, report))
    }

    /// The customer's proxy, as a probe is given it.
    pub fn proxy_url() -> String {
        format!("http://{PROXY_V4}:{PROXY_PORT}")
    }

    /// An operator at the cloud.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    async fn kill_cloud(&mut self) -> Result<(), SystemError> {
        if let Some(mut cloud) = self.cloud.take() {
            cloud.kill().await?;
        }
        Ok(())
    }

    async fn resume_cloud(&mut self) -> Result<(), SystemError> {
        let (cloud, ready) = start_cloud(&self.stage, Some(self.ready.people_port)).await?;
        self.cloud = Some(cloud);
        self.ready = ready;
        Ok(())
    }

    async fn beacon(&self, state: &str) -> Result<(), SystemError> {
        sign_beacon(&self.stage, &self.ready, state).await
    }

    /// Sets the box's proxy; empty for none.
    async fn set_proxy(&self, url: &str) -> Result<(), SystemError> {
        let state = self.stage.path("box").display().to_string();
        let url = if url.is_empty() { "none" } else { url };
        let arguments = ["--state", &state, "proxy", url];
        self.stage.run("proxy", "longhaul-box", arguments).await?;
        Ok(())
    }

    /// Strikes the box out of the fleet; there is no way back.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn revoke(&self) -> Result<(), SystemError> {
        let path = format!("/v1/boxes/{}/revoke", self.box_id);
        self.operator.order(&path).await?;
        Ok(())
    }
}

/// What a box shows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reading {
    /// Every rung holds.
    Well,
    /// The first rung that does not, by its code.
    Code(String),
    /// Neither is known yet.
    Unknown,
}

impl Reading {
    fn of(rungs: &Value) -> Self {
        let rungs = rungs.as_array().map(Vec::as_slice).unwrap_or_default();
        if let Some(code) = rungs.iter().find_map(|rung| rung["code"].as_str()) {
            return Self::Code(code.to_owned());
        }
        let well = rungs.len() == 10 && rungs.iter().all(|rung| rung["status"] == json!("ok"));
        if well { Self::Well } else { Self::Unknown }
    }
}

/// Takes the address that was given, and nothing else.
const LEASE: &str = r#"#!/bin/sh
case "$1" in
deconfig) ip addr flush dev "$interface" ;;
bound | renew)
    ip addr replace "$ip/$mask" dev "$interface"
    [ -z "$router" ] || ip route replace default via "${router%% *}" dev "$interface"
    ;;
esac
"#;

async fn lay_lines(router: &Namespace, inside: &Namespace) -> Result<(), SystemError> {
    let shell = Shell::default()
        .add("ip link set lo up")
        .add(format!(
            "ip link add wan0 type veth peer name wan0 netns {}",
            router.pid()
        ))
        .add("ip link set wan0 up");
    let addresses = [
        CLOUD_V4,
        STATUS_V4,
        "203.0.113.30",
        PORTAL_V4,
        "203.0.113.50",
    ]
    .into_iter()
    .chain([RESOLVER_V4, PROXY_V4, "203.0.113.70"]);
    let shell = addresses.fold(shell, |shell, address| {
        shell.add(format!("ip addr add {address}/24 dev wan0"))
    });
    let shell = [CLOUD_V6, RESOLVER_V6]
        .iter()
        .fold(shell, |shell, address| {
            shell.add(format!("ip addr add {address}/64 dev wan0 nodad"))
        });
    shell
        .add("ip route add default via 203.0.113.1")
        .add("ip route add 2001:db8:1::/64 via 2001:db8:ffff::1")
        .run()
        .await?;
    router
        .run(&format!(
            "ip link set lo up
             ip link add lan0 type veth peer name eth0 netns {}
             ip addr add 203.0.113.1/24 dev wan0
             ip addr add 2001:db8:ffff::1/64 dev wan0 nodad
             ip link set wan0 up
             ip addr add 192.168.77.1/24 dev lan0
             echo 1 > /proc/sys/net/ipv6/conf/lan0/keep_addr_on_down
             ip addr add 2001:db8:1::1/64 dev lan0 nodad
             echo 1 > /proc/sys/net/ipv4/ip_forward
             echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             nft add table ip nat
             nft 'add chain ip nat leave {{ type nat hook postrouting priority 100; }}'
             nft add rule ip nat leave oifname wan0 masquerade",
            inside.pid()
        ))
        .await?;
    // A box's interface is up from the start, and waits for its cable.
    inside.run("ip link set lo up; ip link set eth0 up").await
}

async fn start_cloud(
    stage: &Stage,
    people: Option<u16>,
) -> Result<(Process, CloudReady), SystemError> {
    let people = people.unwrap_or(0);
    let arguments = [
        format!("--listen-people=127.0.0.1:{people}"),
        "--listen-boxes=[::]:443".to_owned(),
        "--listen-mqtt=[::]:8883".to_owned(),
        "--listen-s3=[::]:9000".to_owned(),
        format!("--public-host={CLOUD}"),
    ];
    stage.cloud_with(&arguments).await
}

async fn sign_beacon(stage: &Stage, ready: &CloudReady, says: &str) -> Result<(), SystemError> {
    let arguments = [
        "beacon".to_owned(),
        format!("--pki={}", ready.pki.display()),
        format!("--state={says}"),
        "--text=storage is being repaired".to_owned(),
        format!("--out={}", stage.path("beacon.jws").display()),
    ];
    stage.run("beacon", "longhaul-factory", arguments).await?;
    Ok(())
}

/// The software TPM speaks on loopback, so it must run where the box does.
async fn inside_tpm(
    stage: &mut Stage,
    inside: &Namespace,
) -> Result<(Process, String), SystemError> {
    let stage = stage.clone().within(inside.entry());
    stage.software_tpm().await
}

async fn ask(socket: &Path) -> std::io::Result<Value> {
    use tokio::io::AsyncReadExt as _;
    let mut stream = tokio::net::UnixStream::connect(socket).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(serde_json::from_slice(&answer)?)
}

fn file(path: &Path, source: std::io::Error) -> SystemError {
    SystemError::File {
        path: path.to_owned(),
        source,
    }
}

/// Waits until the box has been well once, from nothing.
///
/// # Errors
///
/// [`SystemError`].
pub async fn come_up(lab: &mut Lab) -> Result<(), SystemError> {
    lab.admit().await?;
    lab.plug().await?;
    lab.shows(&Reading::Well).await?;
    Ok(())
}

async fn wait_for(
    what: &str,
    condition: impl AsyncFn() -> Result<(), String>,
) -> Result<(), SystemError> {
    Ok(until(what, PATIENCE, || condition()).await?)
}
