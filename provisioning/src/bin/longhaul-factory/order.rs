//! Reads an order as the cloud signed it.

use std::error::Error;
use std::io::Read as _;
use std::path::Path;

use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::network::OrderFile;
use longhaul_protocol::value::{Jws, UnixMillis};
use longhaul_provisioning::jws::{self, Kind, MAX_COMPACT};
use longhaul_provisioning::trust::Anchors;

/// The order in this file, if this fleet's cloud signed it and its answers can be.
pub fn read(path: &Path, anchors: &Anchors, now: UnixMillis) -> Result<OrderFile, Box<dyn Error>> {
    let about = |text: String| format!("order file {}: {text}", path.display());
    let mut text = String::new();
    let limit = u64::try_from(MAX_COMPACT)? + 1;
    std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .map_err(|e| about(e.to_string()))?;
    let verified = jws::verify(&Jws(text.trim().to_owned()), Kind::Order, anchors, now)
        .map_err(|e| about(e.to_string()))?;
    let order: OrderFile =
        serde_json::from_slice(&verified.payload).map_err(|e| about(e.to_string()))?;
    if order.v != VERSION {
        return Err(about(format!("version {}, not {VERSION}", order.v)).into());
    }
    order.network.check().map_err(|e| about(e.to_string()))?;
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_protocol::network::NetworkAnswers;
    use longhaul_provisioning::ca::Pki;
    use longhaul_provisioning::jws::Signer;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    #[test]
    fn only_an_order_of_this_fleets_cloud_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let pki = |name: &str| Pki::init(&dir.path().join(name), NOW).unwrap();
        let (ours, others) = (pki("ours"), pki("others"));
        let anchors = ours.root_anchor().unwrap();
        let order = |vlan| OrderFile {
            v: VERSION,
            order: "order-1".parse().unwrap(),
            network: NetworkAnswers {
                vlan: Some(vlan),
                ..NetworkAnswers::default()
            },
            made_at: NOW,
        };
        let path = dir.path().join("order.jws");
        let read_signed = |pki: &Pki, kind, order: &OrderFile| {
            let identity = pki.issue_statement_signer("cloud", 60, NOW).unwrap();
            let payload = serde_json::to_vec(order).unwrap();
            let Jws(compact) = Signer::new(&identity)
                .unwrap()
                .sign(kind, &payload)
                .unwrap();
            std::fs::write(&path, compact + "\n").unwrap();
            read(&path, &anchors, NOW).map_err(|e| e.to_string())
        };

        assert_eq!(read_signed(&ours, Kind::Order, &order(20)), Ok(order(20)));
        assert!(read_signed(&others, Kind::Order, &order(20)).is_err());
        assert!(read_signed(&ours, Kind::Ticket, &order(20)).is_err());
        assert!(
            read_signed(&ours, Kind::Order, &order(5000))
                .unwrap_err()
                .contains("vlan")
        );
        for garbage in [&b""[..], b"\xff", b"a.b.c", &vec![b'x'; 100_000]] {
            std::fs::write(&path, garbage).unwrap();
            assert!(read(&path, &anchors, NOW).is_err());
        }
        assert!(read(dir.path(), &anchors, NOW).is_err());
    }
}
