//! What the printed configuration lets each role do at the cluster, and what not.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use longhaul_protocol::backbone::{self as wire, ALL_DN, ALL_UP, Role, WORKERS};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::topic::Up;
use longhaul_provisioning::ca::{Identity, Pki};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;

use crate::boxes::LightBox;
use crate::servers::Servers;
use crate::system::now;

struct Peer {
    client: Client,
    errors: mpsc::UnboundedReceiver<String>,
}

async fn connect(
    servers: &Servers,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Peer, async_nats::ConnectError> {
    let mut roots = rustls::RootCertStore::empty();
    let trusted = longhaul_provisioning::backbone::roots(&servers.path("ca.pem"));
    roots.add_parsable_certificates(trusted.expect("a root"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("a client");
    let (told, errors) = mpsc::unbounded_channel();
    let client = ConnectOptions::new()
        .tls_client_config(tls)
        .require_tls(true)
        .event_callback(move |event| {
            if let Event::ServerError(error) = event {
                let _ = told.send(error.to_string().to_lowercase());
            }
            async {}
        })
        .connect(servers.urls())
        .await?;
    Ok(Peer { client, errors })
}

async fn as_role(servers: &Servers, role: Role) -> Peer {
    let path = servers.path(&format!("{}.pem", role.as_str()));
    let own = Identity::open(&path).expect("read").expect("there");
    let peer = connect(servers, own.chain().to_vec(), own.key()).await;
    peer.expect("let in")
}

impl Peer {
    async fn is_refused(&mut self, what: &str) {
        self.client.flush().await.expect("written");
        let error = tokio::time::timeout(crate::PATIENCE, self.errors.recv()).await;
        let error = error.expect("in time").expect("an error");
        assert!(error.contains("permissions violation"), "{error}");
        assert!(error.contains(what), "{error}");
    }

    async fn publish(&self, subject: String) {
        let payload = "x".into();
        let sent = self.client.publish(subject, payload).await;
        sent.expect("queued");
    }

    async fn subscribe(&self, subject: &str) {
        let made = self.client.subscribe(subject.to_owned()).await;
        drop(made.expect("queued"));
    }
}

#[tokio::test]
async fn each_role_can_do_its_part_and_a_box_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let servers = Servers::start(&folder.path().join("nats")).await;
    let box_id: BoxId = "0123456789AB".parse().expect("a box id");

    let mut edge = as_role(&servers, Role::Edge).await;
    let mut cloud = as_role(&servers, Role::Cloud).await;
    let group = WORKERS.to_owned();
    let mut taken = cloud
        .client
        .queue_subscribe(ALL_UP, group)
        .await
        .expect("queued");
    cloud.client.flush().await.expect("written");
    // The servers tell each other of it; a message before that reaches nobody.
    let arrived = async {
        loop {
            edge.publish(wire::up_subject(&box_id, Up::Journal)).await;
            let next = futures::StreamExt::next(&mut taken);
            if let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(100), next).await
            {
                return message;
            }
        }
    };
    let arrived = tokio::time::timeout(crate::PATIENCE, arrived).await;
    let subject = arrived.expect("in time").subject;
    assert_eq!(
        wire::parse_up(&subject),
        Some((box_id.clone(), Up::Journal))
    );

    edge.publish(wire::dn_subject(&box_id)).await;
    edge.is_refused("fleet.v1.dn").await;
    edge.subscribe(ALL_UP).await;
    edge.is_refused("fleet.v1.up").await;
    cloud.publish(wire::up_subject(&box_id, Up::Journal)).await;
    cloud.is_refused("fleet.v1.up").await;
    cloud.subscribe(ALL_DN).await;
    cloud.is_refused("fleet.v1.dn").await;
    // Not even to listen in, beside the group.
    cloud.subscribe(ALL_UP).await;
    cloud.is_refused("fleet.v1.up").await;

    let fleet = Pki::init(&folder.path().join("pki"), now()).expect("authorities");
    let of = LightBox::new(&fleet, box_id);
    let key = PrivateKeyDer::try_from(of.key.serialize_der()).expect("a key");
    assert!(connect(&servers, of.chain.clone(), key).await.is_err());
}
