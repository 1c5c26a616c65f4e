//! Announces the box on the LAN by mDNS (RFC 6762, 6763), on every interface.
//!
//! Loopback is announced on, too, so that a client on the same machine finds the box. What is said
//! follows the box's status and addresses: the responder watches the interfaces by itself.

use std::net::SocketAddr;
use std::time::Duration;

use longhaul_protocol::lan::{Announcement, LanStatus};
use longhaul_protocol::ticket::MDNS_SERVICE;
use mdns_sd::{IfKind, ServiceDaemon, ServiceInfo};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::status::StatusSource;

/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why the box could not be announced.
#[derive(Debug, thiserror::Error)]
#[error("failed to announce the box by mDNS")]
pub struct DiscoveryError(#[from] mdns_sd::Error);

/// Announces the data plane at `bound` until `stop` is cancelled, then says goodbye.
pub async fn run(
    bound: SocketAddr,
    mut status: StatusSource,
    stop: CancellationToken,
) -> Result<(), DiscoveryError> {
    let daemon = ServiceDaemon::new()?;
    daemon.enable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
    let mut said = None;
    let mut name = String::new();
    loop {
        let announcement = announcement(&status.current());
        if said.as_ref() != Some(&announcement) {
            let info = service(bound, &announcement)?;
            info.get_fullname().clone_into(&mut name);
            daemon.register(info)?;
            said = Some(announcement);
        }
        tokio::select! {
            () = stop.cancelled() => break,
            more = status.changed() => if !more { break },
        }
    }
    // Without it, clients would try the address until the record's time to live has passed.
    if let Ok(done) = daemon.unregister(&name) {
        let _ = timeout(FAREWELL, done.recv_async()).await;
    }
    if let Ok(done) = daemon.shutdown() {
        let _ = timeout(FAREWELL, done.recv_async()).await;
    }
    Ok(())
}

pub(crate) fn announcement(status: &LanStatus) -> Announcement {
    Announcement {
        box_id: status.box_id.clone(),
        agent_version: status.agent_version.clone(),
        code: status.code(),
    }
}

fn service(bound: SocketAddr, announcement: &Announcement) -> Result<ServiceInfo, mdns_sd::Error> {
    let box_id = announcement.box_id.as_str();
    let host = format!("{}.local.", box_id.to_ascii_lowercase());
    let txt = announcement.to_txt();
    let txt: Vec<(&str, &str)> = txt.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let port = bound.port();
    if bound.ip().is_unspecified() {
        let info = ServiceInfo::new(MDNS_SERVICE, box_id, &host, "", port, txt.as_slice())?;
        return Ok(info.enable_addr_auto());
    }
    ServiceInfo::new(
        MDNS_SERVICE,
        box_id,
        &host,
        bound.ip(),
        port,
        txt.as_slice(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_protocol::envelope::VERSION;
    use longhaul_protocol::ids::BoxId;
    use longhaul_protocol::telemetry::VaultFill;
    use mdns_sd::ServiceEvent;

    #[tokio::test]
    async fn a_client_on_the_same_machine_finds_the_box() {
        let box_id = BoxId::from_ek_sha256(&rand::random());
        let (_sender, status) = StatusSource::channel(LanStatus {
            v: VERSION,
            box_id: box_id.clone(),
            agent_version: "1.2.3".to_owned(),
            rungs: Vec::new(),
            vault: VaultFill::default(),
            identifying: false,
            uplink: None,
            capabilities: Vec::new(),
            network: None,
        });
        let stop = CancellationToken::new();
        let bound: SocketAddr = "127.0.0.1:4443".parse().unwrap();
        let task = tokio::spawn(run(bound, status, stop.clone()));
        let client = ServiceDaemon::new().unwrap();
        let events = client.browse(MDNS_SERVICE).unwrap();

        let found = timeout(Duration::from_secs(20), async {
            loop {
                let ServiceEvent::ServiceResolved(service) = events.recv_async().await.unwrap()
                else {
                    continue;
                };
                let said = Announcement::from_txt(|key| service.get_property_val_str(key));
                if said.as_ref().is_some_and(|said| said.box_id == box_id) {
                    break service.get_port();
                }
            }
        })
        .await;

        stop.cancel();
        task.await.unwrap().unwrap();
        let _ = client.shutdown();
        assert_eq!(found.expect("it announces itself"), 4443);
    }
}
