//! The golden samples: what is on the wire today must be readable for ever. The dashboards' tests
//! read the same files. `LONGHAUL_BLESS=1 cargo test -p longhaul-protocol --test wire` rewrites them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use longhaul_protocol::command::{
    CommandClaims, CommandKind, CommandState, CommandUpdate, Rejection, RetryScope, SignedCommand,
};
use longhaul_protocol::diag::{Code, Fix, Rung, RungReport, RungStatus};
use longhaul_protocol::enrol::{Challenge, ChallengeRequest, Evidence, Issued, Problem};
use longhaul_protocol::envelope::{self, DecodeError, Message};
use longhaul_protocol::inventory::{
    BoxConfig, CloudEndpoint, InventoryRecord, NetworkHints, StaticNetwork,
};
use longhaul_protocol::journal::{
    Fact, JournalAck, JournalBatch, JournalEntry, ObjectVersion, Outcome,
};
use longhaul_protocol::journey::{Guide, Step};
use longhaul_protocol::lan::{Deliveries, Delivery, LanStatus, PACKS};
use longhaul_protocol::network::{Addressing, Egress, NetworkAnswers, OrderFile};
use longhaul_protocol::network_settings::{
    FixedAddress, NetworkBy, NetworkReport, NetworkSettings, NetworkState, NetworkWish,
};
use longhaul_protocol::pack::{EntryHeader, PackLine, StopCode};
use longhaul_protocol::presence::{Birth, Death, Presence};
use longhaul_protocol::probe::{
    DnsServer, Finding, InterfaceSeen, Ipv6, LadderLine, Line, Nat, Need, ProbeClaims, ProbeReport,
    ProbeTicket, Seen, SignedReport, WayOut,
};
use longhaul_protocol::receipt::{
    InclusionProof, Leaf, LeafPlace, Receipt, ReceiptAsk, ReceiptTexts,
};
use longhaul_protocol::recovery::WrappedKey;
use longhaul_protocol::release::{Assignment, UpdateStatus, UpdateStep};
use longhaul_protocol::telemetry::{Disk, Network, Telemetry, Temperature, VaultFill};
use longhaul_protocol::ticket::{Credential, CredentialSet, Secret, Ticket};
use longhaul_protocol::twin::{Desired, Reported, SignedDesired, Slots, TicketRef};
use longhaul_protocol::uplink::{Priority, UplinkMode, UplinkPolicy, UplinkState, Week};
use longhaul_protocol::upload::{
    BucketRefused, BucketState, CompleteResult, Completed, PackCompleted, PackStarted,
    PresignedPut, StartResult, StartUploads, Started, StoreTrust, UploadObject,
};
use longhaul_protocol::value::{Blob, Digest32, Jws, UnixMillis};
use serde::Serialize;
use serde::de::DeserializeOwned;

const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

fn id<T: std::str::FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("a valid identifier")
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/wire")
        .join(format!("{name}.json"))
}

/// Compares `value` with the golden sample `name` in both directions.
#[track_caller]
fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let json = serde_json::to_string_pretty(value).expect("serializes") + "\n";
    if std::env::var_os("LONGHAUL_BLESS").is_some() {
        std::fs::write(path(name), &json).expect("the sample can be written");
    }
    let text = std::fs::read_to_string(path(name)).expect("the sample exists");
    assert_eq!(json, text, "{name}: what is written has changed");
    let read: T = serde_json::from_str(&text).expect("the sample can be read");
    assert_eq!(read, *value, "{name}: what is read has changed");
}

/// Like [`golden`], inside the envelope that MQTT messages have.
#[track_caller]
fn golden_message<T: Message + PartialEq + Debug>(name: &str, body: &T) {
    let bytes = envelope::encode(body, NOW).expect("encodes");
    let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    golden(name, &value);
    let read = envelope::decode::<T>(&std::fs::read(path(name)).expect("the sample exists"))
        .expect("the sample can be read");
    assert_eq!(read.body, *body, "{name}: what is read has changed");
}

fn rungs() -> Vec<RungReport> {
    vec![
        RungReport {
            rung: Rung::Link,
            status: RungStatus::Ok,
            code: None,
            evidence: "eth0 1000 Mbit/s".into(),
            since: NOW,
        },
        RungReport {
            rung: Rung::Address,
            status: RungStatus::Failed,
            code: Some(Code::NO_ADDRESS),
            evidence: "eth0: no lease after 10 s".into(),
            since: NOW,
        },
        RungReport {
            rung: Rung::Gateway,
            status: RungStatus::NotReached,
            code: None,
            evidence: String::new(),
            since: NOW,
        },
    ]
}

fn vault() -> VaultFill {
    VaultFill {
        capacity_bytes: 1 << 40,
        used_bytes: 1 << 30,
        objects: 12,
        pending_objects: 2,
        pending_bytes: 4096,
    }
}

fn telemetry() -> Telemetry {
    Telemetry {
        uptime_secs: 3600,
        load_1m: 0.25,
        memory_total_bytes: 16 << 30,
        memory_available_bytes: 12 << 30,
        disks: vec![Disk {
            mount: "/data".into(),
            total_bytes: 1 << 40,
            free_bytes: 1 << 39,
        }],
        temperatures: vec![Temperature {
            sensor: "cpu".into(),
            celsius: 48.5,
        }],
        networks: vec![Network {
            interface: "eth0".into(),
            addresses: vec!["192.0.2.7".into()],
            received_bytes: 10,
            sent_bytes: 20,
        }],
        vault: Some(vault()),
        certificate_expires: Some(NOW.plus_secs(259_200)),
        rungs: rungs(),
    }
}

fn object() -> ObjectVersion {
    ObjectVersion {
        bucket: "survey-2026".into(),
        key: id("line 7/ä.seg"),
        version: 42,
    }
}

#[test]
fn presence() {
    golden_message(
        "presence-birth",
        &Presence::Birth(Birth {
            session: id("s-1"),
            boot: id("b-1"),
            epoch: id("e-1"),
            agent_version: "0.1.0".into(),
            os_version: None,
            capabilities: vec!["identify".into(), "update".into()],
            desired_version: 3,
            certificate_expires: NOW.plus_secs(259_200),
            lan_urls: vec!["https://192.0.2.7:8420".into()],
            rungs: rungs(),
        }),
    );
    golden_message(
        "presence-death",
        &Presence::Death(Death {
            session: id("s-1"),
            reason: None,
        }),
    );
}

#[test]
fn telemetry_sample() {
    golden_message("telemetry", &telemetry());
}

#[test]
fn journal_of_a_bring_up() {
    let facts = [
        Fact::Started {
            agent_version: "0.2.0".into(),
            boot: id("b-2"),
            unclean: false,
            since_boot_ms: Some(9_000),
        },
        Fact::Rung {
            rung: Rung::Address,
            code: None,
            evidence: "192.0.2.7".into(),
            lasted_ms: 4500,
            boot: Some(id("b-2")),
            since_boot_ms: Some(61_000),
            fix: Some(Fix::OtherSide),
        },
    ];
    let entry = |(number, fact)| JournalEntry {
        number,
        at: NOW,
        fact,
    };
    golden_message(
        "journal-bring-up",
        &JournalBatch {
            epoch: id("e-1"),
            entries: (7..).zip(facts).map(entry).collect(),
        },
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one fact of each kind")]
fn journal() {
    let facts = [
        Fact::Started {
            agent_version: "0.1.0".into(),
            boot: id("b-1"),
            unclean: true,
            since_boot_ms: None,
        },
        Fact::Rung {
            rung: Rung::Address,
            code: Some(Code::NO_ADDRESS),
            evidence: "eth0".into(),
            lasted_ms: 1500,
            boot: None,
            since_boot_ms: None,
            fix: None,
        },
        Fact::Certificate { expires: NOW },
        Fact::CommandResult {
            id: id("c-1"),
            outcome: Outcome::Done {
                detail: serde_json::json!({"blinked": 5}),
            },
        },
        Fact::CommandResult {
            id: id("c-2"),
            outcome: Outcome::Failed {
                reason: "no light".into(),
            },
        },
        Fact::Update(UpdateStatus {
            command: id("c-3"),
            rollout: id("r-1"),
            version: "0.2.0".into(),
            step: UpdateStep::RolledBack,
            reason: Some("health check failed".into()),
            fetched_bytes: None,
        }),
        Fact::Stored {
            object: object(),
            bytes: 3,
            blake3: Digest32([1; 32]),
            receipt: Some(LeafPlace {
                epoch: id("epoch-2"),
                index: 0,
                stored: NOW,
            }),
        },
        Fact::Sealed {
            root: Jws("h.p.s".into()),
        },
        Fact::Deleted { object: object() },
        Fact::VaultKey(WrappedKey {
            v: 1,
            box_id: id("0123456789AB"),
            recipient: Digest32([3; 32]),
            key_id: Digest32([4; 32]),
            encapsulated: Blob(vec![5; 65]),
            sealed: Blob(vec![6; 48]),
            made_at: NOW,
        }),
        Fact::Erased {
            bucket: "survey".into(),
            objects: 12,
        },
        Fact::Delivered {
            object: object(),
            upload: id("u-1"),
        },
        Fact::DeliveryFailed {
            object: object(),
            reason: "the bucket refuses this name".into(),
        },
        Fact::Failure {
            part: "vault".into(),
            text: "frame 3 of segment 9 is damaged".into(),
        },
        Fact::Notice {
            part: "names".into(),
            text: "the name \"a\" differs from \"A\" in upper and lower case alone".into(),
        },
        Fact::Telemetry(Box::new(telemetry())),
    ];
    let entries = (1..)
        .zip(facts)
        .map(|(number, fact)| JournalEntry {
            number,
            at: NOW,
            fact,
        })
        .collect();
    golden_message(
        "journal-batch",
        &JournalBatch {
            epoch: id("e-1"),
            entries,
        },
    );
    golden_message(
        "journal-ack",
        &JournalAck {
            epoch: id("e-1"),
            through: 12,
        },
    );
}

#[test]
fn commands() {
    let claims = |command| CommandClaims {
        v: 1,
        id: id("c-1"),
        box_id: id("0123456789AB"),
        counter: 7,
        not_before: NOW,
        expires: NOW.plus_secs(60),
        issued_by: "ada".into(),
        approved_by: None,
        command,
    };
    golden(
        "command-identify",
        &claims(CommandKind::Identify { seconds: 10 }),
    );
    golden("command-report-now", &claims(CommandKind::ReportNow));
    let scope = RetryScope::Object {
        bucket: "survey".into(),
        key: "a/b".parse().expect("a key"),
    };
    golden("command-retry", &claims(CommandKind::Retry(scope)));
    let erase = CommandKind::EraseBucket {
        bucket: "survey".into(),
    };
    let approved = CommandClaims {
        approved_by: Some("bob".into()),
        ..claims(erase)
    };
    golden("command-erase-bucket", &approved);
    golden(
        "command-set-telemetry-interval",
        &claims(CommandKind::SetTelemetryInterval { seconds: 5 }),
    );
    golden(
        "command-update",
        &claims(CommandKind::Update(Assignment {
            rollout: id("r-1"),
            version: "0.2.0".into(),
            target: "agent-0.2.0.tar".into(),
            sha256: Digest32([2; 32]),
            length: 1024,
        })),
    );
    golden_message(
        "signed-command",
        &SignedCommand {
            jws: Jws("e30.e30.AA".into()),
            traceparent: None,
        },
    );
    golden_message(
        "command-accepted",
        &CommandUpdate {
            id: Some(id("c-1")),
            state: CommandState::Accepted,
        },
    );
    golden_message(
        "command-rejected",
        &CommandUpdate {
            id: None,
            state: CommandState::Rejected {
                reason: Rejection::Unsigned,
                text: "no signature".into(),
            },
        },
    );
    golden_message(
        "command-progress",
        &CommandUpdate {
            id: Some(id("c-1")),
            state: CommandState::Progress {
                percent: 40,
                text: "downloading".into(),
            },
        },
    );
}

fn network() -> NetworkSettings {
    NetworkSettings {
        addresses: vec![FixedAddress {
            address: id("192.0.2.7"),
            prefix_len: 24,
            gateway: Some(id("192.0.2.1")),
        }],
        dns: vec![id("192.0.2.53")],
        vlan: Some(7),
        proxy: Some("http://ada:lovelace@proxy.example:3128".into()),
    }
}

#[test]
fn twin() {
    golden(
        "desired",
        &Desired {
            v: 1,
            box_id: id("0123456789AB"),
            version: 3,
            telemetry_interval_secs: 30,
            tickets: vec![TicketRef {
                id: id("t-1"),
                access_key: "LHAK".into(),
                expires: NOW,
            }],
            uplink: UplinkPolicy {
                paused: true,
                week: Some(Week {
                    utc_offset_minutes: 60,
                    limits: Box::new(std::array::from_fn(|day| {
                        std::array::from_fn(|hour| match hour {
                            8..18 if day < 5 => Some(1 << 20),
                            12.. if day == 6 => Some(0),
                            _ => None,
                        })
                    })),
                }),
                priorities: BTreeMap::from([("survey-2026".into(), Priority::Urgent)]),
            },
            network: Some(NetworkWish {
                change: 7,
                settings: Some(network()),
            }),
            held: Some("PCR 7 is not what was expected".into()),
            journey: Some(Guide {
                step: Step::Push,
                text: "Push your files to survey-2026.".into(),
            }),
        },
    );
    golden_message(
        "signed-desired",
        &SignedDesired {
            jws: Jws("e30.e30.AA".into()),
        },
    );
    golden_message(
        "reported",
        &Reported {
            desired_version: 3,
            telemetry_interval_secs: 30,
            agent_version: "0.1.0".into(),
            slots: Slots {
                active: "a".into(),
                a: Some("0.1.0".into()),
                b: None,
            },
            tickets: vec![id("t-1")],
            lan_urls: vec!["https://192.0.2.7:8420".into()],
            problems: vec![],
            uplink: Some(UplinkState {
                state: UplinkMode::Sending,
                bytes_per_sec: Some(1 << 20),
                code: Some(Code::BUCKET_HELD),
            }),
            network: Some(NetworkReport {
                change: 7,
                by: NetworkBy::Cloud,
                state: NetworkState::RolledBack,
                settings: Some(network().without_secrets()),
                reason: "the cloud was not reached within 120 s".into(),
                left_secs: None,
            }),
        },
    );
}

#[test]
fn tickets() {
    golden(
        "ticket",
        &Ticket {
            v: 1,
            id: id("t-1"),
            box_id: id("0123456789AB"),
            order: Some(id("o-1")),
            bucket: "survey-2026".into(),
            region: "longhaul".into(),
            access_key: "LHAK".into(),
            secret_key: Secret("s".into()),
            issued: Some(NOW),
            expires: NOW,
            root_pem: "-----BEGIN CERTIFICATE-----\n".into(),
            lan_urls: vec![],
            cloud_url: Some("https://cloud.example:8443".into()),
        },
    );
    golden(
        "credentials",
        &CredentialSet {
            desired_version: 3,
            credentials: vec![Credential {
                ticket: id("t-1"),
                bucket: "survey-2026".into(),
                access_key: "LHAK".into(),
                secret_key: Secret("s".into()),
                expires: NOW,
            }],
        },
    );
}

#[test]
fn enrolment() {
    golden(
        "enrol-challenge-request",
        &ChallengeRequest {
            v: 1,
            ek_certificate: Blob(vec![1]),
            iak_public: Blob(vec![2]),
        },
    );
    golden(
        "enrol-challenge",
        &Challenge {
            id: "ch-1".into(),
            nonce: Blob(vec![3; 32]),
            credential_blob: Blob(vec![4]),
            encrypted_secret: Blob(vec![5]),
            pcrs: vec![0, 7],
            expires: NOW,
        },
    );
    golden(
        "enrol-evidence",
        &Evidence {
            v: 1,
            challenge: "ch-1".into(),
            activated: Blob(vec![6]),
            ldevid_public: Blob(vec![7]),
            certify_attest: Blob(vec![8]),
            certify_signature: Blob(vec![9]),
            quote_attest: Blob(vec![10]),
            quote_signature: Blob(vec![11]),
            pcr_values: BTreeMap::from([(0, Digest32([0; 32])), (7, Digest32([7; 32]))]),
            csr: Blob(vec![12]),
        },
    );
    golden(
        "enrol-issued",
        &Issued {
            certificate_chain: vec![Blob(vec![13])],
            expires: NOW,
            endpoints: vec![endpoint()],
            server_time: NOW,
        },
    );
    golden(
        "problem",
        &Problem {
            kind: "urn:longhaul:problem:unknown-box".into(),
            title: "unknown box".into(),
            status: 403,
            detail: "box 0123456789AB is not in the inventory; import its record first".into(),
        },
    );
}

fn endpoint() -> CloudEndpoint {
    CloudEndpoint {
        host: "cloud.example".into(),
        https_port: 8444,
        mqtt_port: 8883,
    }
}

#[test]
fn factory() {
    golden(
        "inventory-record",
        &InventoryRecord {
            v: 1,
            box_id: id("0123456789AB"),
            ek_sha256: Digest32([1; 32]),
            ek_certificate: Blob(vec![1]),
            iak_name: Blob(vec![2]),
            iak_public: Blob(vec![3]),
            idevid_certificate: Blob(vec![4]),
            expected_pcrs: BTreeMap::from([(7, Digest32([7; 32]))]),
            claim_code_sha256: Digest32([8; 32]),
            hardware: "swtpm".into(),
            order: None,
            made_at: NOW,
        },
    );
    golden(
        "box-config",
        &BoxConfig {
            v: 1,
            box_id: id("0123456789AB"),
            endpoints: vec![endpoint()],
            root_pem: "-----BEGIN CERTIFICATE-----\n".into(),
            vlan: None,
            dot1x: None,
            egress: Vec::new(),
            static_network: Some(StaticNetwork {
                address: id("192.0.2.7"),
                prefix_len: 24,
                gateway: Some(id("192.0.2.1")),
                dns: vec![id("192.0.2.53")],
            }),
            order: Some(id("o-1")),
            pcrs: vec![0, 7],
            recovery_key: Some(Blob(vec![4; 65])),
            claim_code_sha256: Some(Digest32([8; 32])),
            hints: NetworkHints {
                beacons: vec!["http://status.example/beacon".into()],
                reach: vec!["one.example:443".into()],
                proxy: Some("http://proxy.example:3128".into()),
            },
            made_at: NOW,
        },
    );
}

#[test]
fn delivery() {
    golden(
        "upload-start",
        &StartUploads {
            objects: vec![UploadObject {
                object: object(),
                ticket: id("t-1"),
                bytes: 3,
                blake3: Digest32([1; 32]),
                content_type: Some("text/plain".into()),
                metadata: BTreeMap::from([("line".into(), "7".into())]),
                headers: BTreeMap::from([("content-language".into(), "nb".into())]),
            }],
            conditions: true,
        },
    );
    let put = PresignedPut {
        url: "https://store.example/b/k?X-Amz-Signature=0".into(),
        headers: BTreeMap::from([("content-type".into(), "text/plain".into())]),
        trust: StoreTrust::Public,
    };
    golden(
        "upload-started",
        &Started {
            uploads: vec![
                StartResult::Single {
                    upload: id("u-1"),
                    put,
                },
                StartResult::Multipart {
                    upload: id("u-2"),
                    part_bytes: 16 << 20,
                    parts: 16,
                },
                StartResult::Verified { upload: id("u-3") },
                StartResult::Packed { upload: id("u-4") },
                StartResult::Later {
                    reason: "another version is on its way".into(),
                    held: false,
                },
                StartResult::Refused {
                    reason: "the bucket does not exist".into(),
                },
            ],
        },
    );
    golden(
        "pack-started",
        &PackStarted {
            pack: id("pk-1"),
            put: PresignedPut {
                url: "https://s3.example/staging/pk-1?X-Amz-Signature=00".into(),
                headers: BTreeMap::new(),
                trust: StoreTrust::Fleet,
            },
            uploads: vec![StartResult::Packed { upload: id("u-4") }],
        },
    );
    golden(
        "pack-completed",
        &PackCompleted::Unpacked {
            uploads: BTreeMap::from([(id("u-4"), CompleteResult::Verified)]),
        },
    );
    golden(
        "upload-completed",
        &Completed {
            uploads: vec![
                CompleteResult::Verified,
                CompleteResult::Restart {
                    reason: "content differs".into(),
                },
                CompleteResult::Refused {
                    reason: "the ticket was revoked".into(),
                },
                CompleteResult::Later {
                    reason: "bucket survey-2026 is refused to us".into(),
                    held: true,
                },
            ],
        },
    );
}

#[test]
fn refused_buckets_and_receipts() {
    golden(
        "bucket-refused",
        &BucketRefused {
            bucket: "survey-2026".into(),
            reason: "the object store answered 403 Forbidden".into(),
        },
    );
    golden(
        "bucket-state",
        &BucketState {
            held: Some("bucket survey-2026 is refused to us".into()),
            again: false,
        },
    );
    golden(
        "receipt-ask",
        &ReceiptAsk {
            bucket: "survey-2026".into(),
            prefix: "line 7/".into(),
            cursor: Some("opaque".into()),
        },
    );
    golden(
        "receipt-texts",
        &ReceiptTexts {
            items: vec!["{}".into()],
            next: Some("opaque".into()),
        },
    );
    golden(
        "receipt",
        &Receipt {
            v: 1,
            leaf: Leaf {
                object: object(),
                bytes: 3,
                blake3: Digest32([1; 32]),
                stored: NOW,
            },
            proof: InclusionProof {
                index: 0,
                leaves: 1,
                path: vec![],
            },
            root: Jws("e30.e30.AA".into()),
            delivery: None,
        },
    );
}

#[test]
fn lan() {
    golden(
        "lan-status",
        &LanStatus {
            v: 1,
            box_id: id("0123456789AB"),
            agent_version: "0.1.0".into(),
            rungs: rungs(),
            vault: vault(),
            identifying: false,
            uplink: Some(UplinkState {
                state: UplinkMode::Paused,
                bytes_per_sec: None,
                code: None,
            }),
            capabilities: vec![PACKS.into()],
            network: None,
        },
    );
    golden(
        "lan-pack-lines",
        &[
            PackLine::Stored {
                entry: 1,
                version: 77,
                etag: "9c1f-0".into(),
                notice: None,
            },
            PackLine::Refused {
                entry: 2,
                reason: "no bucket can hold the name \"../x\"".into(),
            },
            PackLine::Damaged { entry: 3 },
            PackLine::Stopped {
                code: StopCode::SlowDown,
                reason: "the vault is nearly full".into(),
            },
            PackLine::End { entries: 3 },
        ]
        .to_vec(),
    );
    golden(
        "pack-entry",
        &EntryHeader {
            key: "a/b.txt".into(),
            bytes: 12,
            blake3: Digest32([7; 32]),
            content_type: Some("text/plain".into()),
            metadata: [("mtime".to_owned(), "1795000000.000000001".to_owned())].into(),
        },
    );
    golden(
        "lan-deliveries",
        &Deliveries {
            objects: BTreeMap::from([
                (id("a"), Delivery::OnBox),
                (id("b"), Delivery::Verified),
                (
                    id("c"),
                    Delivery::Failed {
                        reason: "the bucket refuses this name".into(),
                    },
                ),
            ]),
            held: Some("bucket survey-2026 is refused to us".into()),
        },
    );
}

#[test]
fn unknown_fields_are_ignored() {
    let text = std::fs::read_to_string(path("journal-ack")).expect("the sample exists");
    let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    value["body"]["colour"] = "green".into();
    value["trace"] = "x".into();

    let read =
        envelope::decode::<JournalAck>(value.to_string().as_bytes()).expect("still readable");

    assert_eq!(read.body.through, 12);
}

#[test]
fn an_unknown_version_is_refused_and_named() {
    let error = envelope::decode::<JournalAck>(br#"{"v":2,"body":"of another shape"}"#)
        .expect_err("version 2");

    assert!(matches!(
        error,
        DecodeError::UnknownVersion { version: 2, .. }
    ));
    assert_eq!(
        error.to_string(),
        "journal acknowledgement has version 2; this program reads version 1"
    );
}

#[test]
fn a_message_longer_than_its_limit_is_refused_unread() {
    let long = vec![b' '; JournalBatch::MAX_BYTES + 1];

    assert!(matches!(
        envelope::decode::<JournalBatch>(&long),
        Err(DecodeError::TooLong { .. })
    ));
}

#[test]
fn order_for_the_factory() {
    golden(
        "order-file",
        &OrderFile {
            v: 1,
            order: id("ORDER-17"),
            network: NetworkAnswers {
                address: Some(Addressing::Static(StaticNetwork {
                    address: "192.0.2.7".parse().expect("an address"),
                    prefix_len: 24,
                    gateway: Some("192.0.2.1".parse().expect("an address")),
                    dns: vec!["192.0.2.53".parse().expect("an address")],
                })),
                vlan: Some(20),
                proxy: Some("http://proxy.example:3128".into()),
                dot1x: Some(false),
                egress: Some(vec![Egress {
                    host: "*".into(),
                    port: 443,
                }]),
            },
            made_at: NOW,
        },
    );
}

#[test]
fn probes() {
    golden(
        "probe-claims",
        &ProbeClaims {
            v: 1,
            id: id("pt-1"),
            order: id("ORDER-17"),
            endpoints: vec![CloudEndpoint {
                host: "cloud.example".into(),
                https_port: 443,
                mqtt_port: 8883,
            }],
            root_pem: "-----BEGIN CERTIFICATE-----\n".into(),
            hints: NetworkHints {
                beacons: vec!["http://status.example/beacon".into()],
                reach: vec!["one.example:443".into()],
                proxy: None,
            },
            egress: vec![Need {
                host: "s3.example".into(),
                port: 443,
                what: "object store".into(),
            }],
            key: Blob(vec![7; 32]),
            issued: NOW,
            expires: NOW.plus_secs(86_400),
        },
    );
    golden(
        "probe-ticket",
        &ProbeTicket {
            ticket: Jws("e30.e30.c2ln".into()),
            seed: Secret("c2VlZA==".into()),
        },
    );
    golden(
        "probe-signed-report",
        &SignedReport {
            ticket: Jws("e30.e30.c2ln".into()),
            report: "{}".into(),
            signature: Blob(vec![9; 64]),
        },
    );
    golden(
        "probe-seen",
        &Seen {
            address: "198.51.100.7:40000".parse().expect("an address"),
            now: NOW,
        },
    );
}

#[test]
fn probe_report() {
    let report = ProbeReport {
        v: 1,
        ticket: id("pt-1"),
        probe_version: "0.1.0".into(),
        at: NOW,
        findings: vec![Finding {
            code: Code::BROKER_BLOCKED,
            evidence: "port 8883 is shut".into(),
        }],
        ladder: vec![LadderLine {
            rung: Rung::Link,
            code: None,
            evidence: "eth0 has a carrier".into(),
        }],
        interfaces: vec![InterfaceSeen {
            name: "eth0".into(),
            addresses: vec!["192.0.2.7/24".into()],
            mtu: Some(1500),
        }],
        gateway: Some("192.0.2.1".parse().expect("an address")),
        dns: vec![DnsServer {
            address: "192.0.2.53".parse().expect("an address"),
            took_ms: Some(12),
            answers: vec!["203.0.113.10".parse().expect("an address")],
            invents: Some(false),
        }],
        nat: Nat::Cone,
        path_mtu: Some(1492),
        proxy: Some("proxy.example:3128".into()),
        egress: vec![WayOut {
            host: "cloud.example".into(),
            port: 8883,
            what: "control line".into(),
            open: false,
            code: Some(Code::TCP_TIMEOUT),
        }],
        multicast: Some(true),
        clock_ahead_ms: Some(-120),
        line: Some(Line {
            latency_ms: 21,
            down_bits_per_sec: Some(90_000_000),
            up_bits_per_sec: None,
        }),
        ipv6: Ipv6 {
            address: true,
            cloud: None,
        },
    };
    golden("probe-report", &report);
    assert_eq!(report.check(), Ok(()));
    let found = report.answers();
    assert_eq!(found.proxy.as_deref(), Some("http://proxy.example:3128"));
    assert_eq!(found.egress, None, "nothing is open");
}
