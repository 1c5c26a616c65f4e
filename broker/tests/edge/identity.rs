//! Who gets in, and who is put out.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use longhaul_broker::Reason;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, SanType};

use crate::client::{Client, soon};
use crate::fixture::{Fixture, ME, OTHER, box_id, config, up};
use crate::frames::Connect;
use crate::pki::Pki;

/// Whether a TLS client gets any answer to a CONNECT.
async fn is_answered(fixture: &Fixture, tls: std::sync::Arc<rustls::ClientConfig>) -> bool {
    Client::try_connect(fixture.address(), tls, &Connect::new(ME))
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_with_a_valid_certificate_gets_in() {
    let (fixture, _incoming) = Fixture::start(config()).await;

    let mut client = fixture.connect(ME).await;

    client.ping().await;
    assert_eq!(fixture.edge.connected(), [box_id(ME)]);
    assert_eq!(fixture.edge.stats().connects, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_prove_nothing_get_no_answer() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    let (pki, foreign) = (&fixture.pki, Pki::new());
    let expired = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    };
    let early = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2200, 1, 1);
        params.not_after = rcgen::date_time_ymd(2200, 1, 2);
    };
    let server = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let authority = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    };
    let nameless = |params: &mut CertificateParams| params.subject_alt_names.clear();
    let two_names = |params: &mut CertificateParams| {
        let name = params.subject_alt_names[0].clone();
        params.subject_alt_names.push(name);
    };
    let other_urn = |params: &mut CertificateParams| {
        let uri = format!("urn:longhaul:operator:{ME}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
    };

    for (what, tls) in [
        ("none", pki.stranger()),
        (
            "another authority's",
            pki.client_with(&foreign, foreign.certificate(ME, |_| {})),
        ),
        (
            "expired",
            pki.client_with(pki, pki.certificate(ME, expired)),
        ),
        (
            "not yet valid",
            pki.client_with(pki, pki.certificate(ME, early)),
        ),
        (
            "a server's",
            pki.client_with(pki, pki.certificate(ME, server)),
        ),
        (
            "an authority's",
            pki.client_with(pki, pki.certificate(ME, authority)),
        ),
        (
            "without a name",
            pki.client_with(pki, pki.certificate(ME, nameless)),
        ),
        (
            "with two names",
            pki.client_with(pki, pki.certificate(ME, two_names)),
        ),
        (
            "an operator's",
            pki.client_with(pki, pki.certificate(ME, other_urn)),
        ),
    ] {
        assert!(!is_answered(&fixture, tls).await, "{what}");
    }

    assert_eq!(fixture.edge.connected_count(), 0);
    assert_eq!(fixture.edge.stats().connects, 0);
    fixture.connect(ME).await.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_id_that_is_not_the_certificates_box_is_refused() {
    let (fixture, _incoming) = Fixture::start(config()).await;

    for client_id in [OTHER, "", "0123456789ab", "0123456789AB/", "fleet"] {
        let tls = fixture.pki.client(ME);
        let connect = Connect::new(client_id);
        let (mut client, reason) = Client::try_connect(fixture.address(), tls, &connect)
            .await
            .expect("an answer");
        assert_eq!(reason, 0x85, "{client_id:?}");
        assert_eq!(client.closed().await, None);
    }
    assert_eq!(fixture.edge.connected_count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_box_is_refused() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    fixture
        .guard
        .revoked
        .lock()
        .expect("not poisoned")
        .insert(box_id(ME));

    let tls = fixture.pki.client(ME);
    let (mut client, reason) = Client::try_connect(fixture.address(), tls, &Connect::new(ME))
        .await
        .expect("an answer");

    assert_eq!(reason, 0x8A);
    assert_eq!(client.closed().await, None);
    fixture.connect(OTHER).await.ping().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_in_the_middle_of_a_connect_leaves_no_gap() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    *fixture.guard.revokes_next.lock().expect("not poisoned") = Some(box_id(ME));

    let tls = fixture.pki.client(ME);
    let answer = Client::try_connect(fixture.address(), tls, &Connect::new(ME)).await;

    let (_, reason) = answer.expect("an answer");
    assert_eq!(reason, 0x8A);
    assert_eq!(fixture.edge.stats().connects, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_closes_the_connection_within_a_second_even_of_a_box_that_never_reads() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    let mut reader = fixture.connect(ME).await;
    let mut deaf = fixture.connect(OTHER).await;
    assert_eq!(
        deaf.subscribe(&[&format!("fleet/v1/{OTHER}/dn/#")]).await,
        [1]
    );
    let topic = up(OTHER, "telemetry");
    // Enough answers that are never read to fill every buffer on the way, twice over.
    let flood = tokio::spawn(async move {
        let requests = crate::frames::PINGREQ.repeat(8 * 1024);
        while deaf.send(&requests).await.is_ok() {}
        let _ = deaf
            .send(&crate::frames::publish_0(&topic, b"still here"))
            .await;
    });

    let began = Instant::now();
    for id in [ME, OTHER] {
        fixture
            .guard
            .revoked
            .lock()
            .expect("not poisoned")
            .insert(box_id(id));
        assert!(
            fixture
                .edge
                .disconnect(&box_id(id), Reason::AdministrativeAction)
        );
        assert!(!fixture.edge.is_connected(&box_id(id)));
    }
    reader.disconnected(0x98).await;
    soon(flood).await.expect("ended");

    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert!(
        !fixture
            .edge
            .disconnect(&box_id(ME), Reason::AdministrativeAction)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_server_certificate_serves_new_connections_and_keeps_the_old() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    let mut before = fixture.connect(ME).await;
    let next = Pki::new();
    *fixture.tls.lock().expect("not poisoned") = next.server();

    let mut after =
        Client::connect(fixture.address(), next.client(OTHER), &Connect::new(OTHER)).await;

    after.ping().await;
    before.ping().await;
    assert!(!is_answered(&fixture, fixture.pki.client(ME)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_its_certificate() {
    let (fixture, _incoming) = Fixture::start(config()).await;
    let pki = &fixture.pki;
    let certificate = pki.certificate(ME, |params| {
        // Whole seconds in the certificate: two are more than one.
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970() + Duration::from_secs(2);
    });

    let tls = pki.client_with(pki, certificate);
    let mut client = Client::connect(fixture.address(), tls, &Connect::new(ME)).await;

    client.disconnected(0xA0).await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "a certificate ends by the wall clock"
)]
fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
}
