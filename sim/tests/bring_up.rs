//! The box in a customer's network that has something wrong with it, for real: the right code, and
//! back by itself once it is lifted. Each test has network namespaces of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use longhaul_sim::lab::{self, Fault, Lab, Reading, come_up, walk};
use longhaul_sim::system::Programs;
use longhaul_sim::wait::until;
use serde_json::{Value, json};

/// Runs a story in a lab of its own; the thread takes its namespace before any other is made.
fn in_a_lab(story: impl AsyncFnOnce(&mut Lab)) {
    if !lab::enter().expect("a namespace") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let programs = Programs::find().expect("programs");
        let mut lab = Lab::start(folder.path(), programs).await.expect("a lab");
        story(&mut lab).await;
    });
}

async fn suffer_all(lab: &mut Lab, faults: &[Fault]) {
    come_up(lab).await.expect("online");
    for fault in faults {
        let outcome = lab.suffer(*fault).await;
        let outcome = outcome.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        println!(
            "{:<40} {:>5.1} s {:>5.1} s",
            fault.title(),
            outcome.diagnosed.as_secs_f32(),
            outcome.recovered.as_secs_f32()
        );
    }
}

#[test]
fn a_fault_between_box_and_router_is_named_and_survived() {
    in_a_lab(async |lab| {
        suffer_all(
            lab,
            &[
                Fault::NoCable,
                Fault::NoDhcp,
                Fault::NoRouter,
                Fault::AddressConflict,
                Fault::GatewaySilent,
                Fault::Ipv6Only,
            ],
        )
        .await;
    });
}

#[test]
fn a_fault_of_names_or_walls_is_named_and_survived() {
    in_a_lab(async |lab| {
        suffer_all(
            lab,
            &[
                Fault::DnsSilent,
                Fault::DnsLying,
                Fault::DnsSlow,
                Fault::Portal,
                Fault::MqttBlocked,
            ],
        )
        .await;
    });
}

#[test]
fn a_fault_on_the_way_to_the_cloud_is_named_and_survived() {
    in_a_lab(async |lab| {
        suffer_all(
            lab,
            &[
                Fault::ProxyNeeded,
                Fault::ProxyLogin,
                Fault::Intercepted,
                Fault::PathMtu,
                Fault::LineSlow,
                Fault::ClockWrong,
            ],
        )
        .await;
    });
}

#[test]
fn a_fault_at_our_side_is_told_from_the_customers() {
    in_a_lab(async |lab| {
        let refused = |code: &str| Reading::Code(code.to_owned());
        lab.plug().await.expect("plugged in");
        lab.shows(&refused("LH-902")).await.expect("unknown to us");
        suffer_all(
            lab,
            &[Fault::CloudDown, Fault::CloudBlocked, Fault::HalfOpen],
        )
        .await;
        lab.revoke().await.expect("revoked");
        lab.shows(&refused("LH-903")).await.expect("revoked by us");
    });
}

/// All items of a list of the API.
async fn all(lab: &Lab, path: &str) -> Vec<Value> {
    let (mut items, mut next) = (Vec::new(), None::<String>);
    loop {
        let cursor = next.map_or_else(String::new, |next| format!("&cursor={next}"));
        let page = lab
            .operator()
            .get(&format!("{path}?limit=500{cursor}"))
            .await;
        let page = page.expect("a page");
        items.extend(page["items"].as_array().cloned().expect("items"));
        match page["next"].as_str() {
            Some(more) => next = Some(more.to_owned()),
            None => return items,
        }
    }
}

/// How often each code begins by the journal itself, whose entries are numbered and there once.
async fn begins_by_journal(lab: &Lab) -> BTreeMap<String, usize> {
    let path = format!("/v1/boxes/{}/timeline", lab.box_id());
    let mut told = all(lab, &path).await;
    told.retain(|item| item["source"] == "journal" && item["kind"] == "rung");
    told.sort_by_key(|item| item["number"].as_u64());
    let (mut holds, mut begins) = (BTreeMap::new(), BTreeMap::new());
    for item in &told {
        let detail = &item["detail"];
        let before = holds.insert(detail["rung"].to_string(), detail["code"].clone());
        if let Some(code) = detail["code"]
            .as_str()
            .filter(|_| before.as_ref() != Some(&detail["code"]))
        {
            *begins.entry(code.to_owned()).or_default() += 1;
        }
    }
    begins
}

#[test]
fn what_held_a_box_up_is_reported_once_whoever_was_killed() {
    in_a_lab(async |lab| {
        let begun = std::time::Instant::now();
        come_up(lab).await.expect("online");
        lab.suffer(Fault::NoDhcp).await.expect("no DHCP");
        lab.suffer_killed(Fault::Portal).await.expect("a portal");
        lab.suffer(Fault::ProxyNeeded).await.expect("a proxy");
        let elapsed = i64::try_from(begun.elapsed().as_millis()).expect("a time");

        // The journal is told within moments, and the report is of what was told.
        let boots = format!("/v1/insights/bring-up/boots?box_id={}", lab.box_id());
        let lab: &Lab = lab;
        let told = until(
            "the box's failures in the report",
            Duration::from_mins(1),
            || async {
                let begins = begins_by_journal(lab).await;
                let page = lab
                    .operator()
                    .get(&boots)
                    .await
                    .map_err(|e| e.to_string())?;
                let failures = page["items"][0]["failures"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let mut counted = BTreeMap::<String, usize>::new();
                for failure in &failures {
                    *counted
                        .entry(failure["code"].as_str().unwrap_or_default().to_owned())
                        .or_default() += 1;
                }
                let over = failures.iter().all(|failure| failure["lasted_ms"].is_i64());
                let known = ["LH-101", "LH-201", "LH-501", "LH-503"]
                    .iter()
                    .all(|code| counted.contains_key(*code));
                if known && over && counted == begins {
                    Ok((page, failures))
                } else {
                    Err(format!("{begins:?} {page}"))
                }
            },
        );
        let (page, failures) = told.await.expect("told");

        assert_eq!(
            page["items"].as_array().map(Vec::len),
            Some(1),
            "one boot: {page}"
        );
        assert!(page["items"][0]["power_to_online_ms"].is_i64(), "{page}");
        let last = |code: &str| {
            failures
                .iter()
                .rfind(|f| f["code"] == code)
                .cloned()
                .unwrap_or_default()
        };
        for (code, rung, fix) in [
            ("LH-101", "link", "cable"),
            ("LH-201", "address", "address"),
            ("LH-503", "proxy", "other_side"),
            ("LH-501", "proxy", "setting"),
        ] {
            let failure = last(code);
            assert_eq!(
                (&failure["rung"], &failure["fix"]),
                (&json!(rung), &json!(fix)),
                "{failure}"
            );
            let lasted = failure["lasted_ms"].as_i64().expect("over");
            let held_up = failure["held_up_ms"].as_i64().expect("a time");
            assert!(
                0 < held_up && held_up <= lasted && lasted <= elapsed,
                "{failure} in {elapsed} ms"
            );
        }
        let held_up: i64 = failures
            .iter()
            .filter_map(|f| f["held_up_ms"].as_i64())
            .sum();
        assert!(held_up <= elapsed, "{held_up} of {elapsed} ms");
        let report = lab
            .operator()
            .get("/v1/insights/bring-up?group=hardware")
            .await
            .expect("a report");
        let causes = report["items"].as_array().expect("causes");
        let failed: usize = causes
            .iter()
            .filter_map(|c| c["failures"].as_u64())
            .map(|n| usize::try_from(n).expect("a count"))
            .sum();
        assert_eq!(failed, failures.len(), "{report}");
        assert_eq!(report["times"]["online"], 1);
    });
}

fn codes(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().map(Vec::as_slice);
    let findings = findings.unwrap_or_default().iter();
    findings
        .filter_map(|finding| finding["code"].as_str())
        .collect()
}

#[test]
fn a_probe_says_beforehand_what_a_box_would_meet() {
    in_a_lab(async |lab| {
        come_up(lab).await.expect("online");
        let ticket = lab.probe_ticket("order-1").await.expect("a ticket");

        let (code, report) = lab.probe(&ticket, "").await.expect("a report");
        assert_eq!((code, codes(&report)), (0, Vec::new()), "{report}");
        assert_eq!(report["nat"], "cone", "{report}");
        assert_eq!(report["path_mtu"], 1500, "{report}");
        assert_eq!(report["gateway"], "192.168.77.1");
        assert!(
            report["line"]["down_bits_per_sec"].is_u64()
                && report["line"]["up_bits_per_sec"].is_u64(),
            "{report}"
        );
        assert!(
            report["clock_ahead_ms"]
                .as_i64()
                .is_some_and(|ms| ms.abs() < 60_000),
            "{report}"
        );
        assert_eq!(report["dns"][0]["invents"], false, "{report}");
        let network = lab
            .operator()
            .get("/v1/orders/order-1/network")
            .await
            .expect("the order");
        let open = network["answers"]["egress"].as_array().map(Vec::len);
        assert_eq!(open, Some(3), "it sent itself to the order: {network}");

        let expected = [
            (Fault::Portal, "LH-503"),
            (Fault::MqttBlocked, "LH-911"),
            (Fault::ProxyNeeded, "LH-501"),
            (Fault::DnsLying, "LH-402"),
            (Fault::PathMtu, "LH-705"),
        ];
        for (fault, code) in expected {
            let looked = lab.suffer_beside(fault, async |lab| {
                // The box is given the proxy by its own setting; what the probe uses is its own.
                let (ended, report) = lab.probe(&ticket, "").await.expect("a report");
                assert_eq!(
                    (ended, codes(&report).first()),
                    (1, Some(&code)),
                    "{fault:?}: {report}"
                );
                if fault == Fault::ProxyNeeded {
                    let through = format!("--proxy {}", Lab::proxy_url());
                    let (ended, report) = lab.probe(&ticket, &through).await.expect("a report");
                    assert_eq!((ended, codes(&report)), (0, Vec::new()), "{report}");
                }
                if fault == Fault::PathMtu {
                    let mtu = report["path_mtu"].as_u64();
                    assert!(
                        mtu.is_some_and(|mtu| (1150..=1200).contains(&mtu)),
                        "{report}"
                    );
                }
            });
            looked.await.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        }
        let network = lab
            .operator()
            .get("/v1/orders/order-1/network")
            .await
            .expect("the order");
        assert_eq!(
            network["report"].as_str().map(str::len),
            Some(64),
            "{network}"
        );
    });
}

/// Faults in any order. `make soak` walks further: `LONGHAUL_WALK=100`.
#[test]
fn no_order_of_faults_leaves_the_box_stuck() {
    let changes = std::env::var("LONGHAUL_WALK").ok();
    let changes = changes.and_then(|n| n.parse().ok()).unwrap_or(6);
    let seed = rand::random();
    println!("seed {seed}");
    in_a_lab(async |lab| {
        come_up(lab).await.expect("online");
        let quick = [
            Fault::NoCable,
            Fault::NoDhcp,
            Fault::AddressConflict,
            Fault::DnsLying,
            Fault::Portal,
            Fault::Intercepted,
            Fault::HalfOpen,
        ];
        let faults: &[Fault] = if changes > 10 { &Fault::ALL } else { &quick };
        let walked = walk(lab, seed, changes, faults, |outcome| {
            println!("{outcome:?}");
        });
        walked.await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    });
}
