//! What a client says beside the bytes is what the bucket's readers are told.

use std::process::Command;
use std::time::Duration;

use longhaul_sim::sign::Signer;
use longhaul_sim::site::{BUCKET, Plan, Site};
use longhaul_sim::wait::until;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(1);
const HEADERS: [(&str, &str); 8] = [
    ("content-type", "application/x-segy"),
    ("cache-control", "max-age=600, private"),
    ("content-disposition", "attachment; filename=\"line 7.sgy\""),
    ("content-language", "de-DE"),
    ("content-encoding", "x-survey"),
    ("expires", "Wed, 21 Oct 2037 07:28:00 GMT"),
    ("x-amz-meta-crew", "7"),
    ("x-amz-meta-site", "North Sea, block 12"),
];

/// Now, as requests are signed.
fn now() -> String {
    let said = Command::new("date")
        .args(["-u", "+%Y%m%dT%H%M%SZ"])
        .output();
    let said = String::from_utf8(said.expect("the time").stdout).expect("ASCII");
    said.trim().to_owned()
}

fn read(path: &std::path::Path) -> Value {
    let bytes = std::fs::read(path).expect("a file");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn signer(keys: &Value, region: &str, host: &str) -> Signer {
    let text = |name: &str| keys[name].as_str().expect("a text").to_owned();
    Signer {
        access_key: text("access_key"),
        secret_key: text("secret_key"),
        region: region.to_owned(),
        host: host.to_owned(),
        at: now(),
    }
}

/// Believes the fleet's root, and finds every name on this machine.
fn client(root_pem: &[u8], name: &str) -> reqwest::Client {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(root_pem) {
        roots.add(certificate.expect("PEM")).expect("a root");
    }
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .resolve(name, ([127, 0, 0, 1], 0).into())
        .build()
        .expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_metadata_of_a_put_to_the_box_are_those_of_a_head_at_the_bucket() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        supervised: false,
        ..Plan::default()
    };
    let mut site = Site::stand(folder.path(), plan).await.expect("a site");
    let ticket = read(&site.stage.path("ticket.json"));
    let root = std::fs::read(&site.ready.root_pem).expect("the root");
    let name = ticket["box_id"].as_str().expect("a name").to_lowercase();
    let customer = site.customer();
    let known = until("the box to know the ticket", PATIENCE, || {
        customer.json(0, &["ls"])
    });
    known.await.expect("known");
    // A single request, and one in parts.
    let small = vec![b's'; 1000];
    let large = vec![b'l'; 20 << 20];
    let name = format!("{name}.box.longhaul.internal");
    let at_box = client(&root, &name);
    let host = format!("{name}:{}", site.data_port);
    let region = ticket["region"].as_str().expect("a region");
    for (key, body) in [("small.sgy", &small), ("large.sgy", &large)] {
        let path = format!("/{BUCKET}/{key}");
        let signed = signer(&ticket, region, &host).presigned("PUT", &path);
        let mut put = at_box
            .put(format!("https://{host}{signed}"))
            .body(body.clone());
        for (name, value) in HEADERS {
            put = put.header(name, value);
        }
        let answer = put.send().await.expect("an answer");
        let status = answer.status();
        assert!(status.is_success(), "{status}: {:?}", answer.text().await);
    }

    let keys = read(&site.stage.path("cloud/s3-keys.json"));
    let host = format!("localhost:{}", site.ready.s3_port);
    let at_bucket = client(&root, "localhost");
    for key in ["small.sgy", "large.sgy"] {
        let path = format!("/{BUCKET}/{key}");
        let head = until("the object in the bucket", PATIENCE, || async {
            let signed = signer(&keys, "us-east-1", &host).presigned("HEAD", &path);
            let answer = at_bucket
                .head(format!("https://{host}{signed}"))
                .send()
                .await;
            let answer = answer.map_err(|e| e.to_string())?;
            if answer.status().is_success() {
                Ok(answer)
            } else {
                Err(answer.status().to_string())
            }
        });
        let head = head.await.expect("delivered");
        for (name, value) in HEADERS {
            let there = head.headers().get(name).and_then(|v| v.to_str().ok());
            assert_eq!(there, Some(value), "{name} of {key}");
        }
    }
    site.online().await.expect("still there");
    site.stop().await.expect("they stop when asked");
}
