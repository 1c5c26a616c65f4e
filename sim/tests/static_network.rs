//! A box whose network settings are changed from afar, in network namespaces of its own: right ones
//! are kept, wrong ones go back by themselves, also where the power goes in between.

use std::fmt::Write as _;

use longhaul_sim::lab::{self, Lab, Reading};
use longhaul_sim::system::Programs;
use serde_json::{Value, json};

/// Longer than any machine needs to reach the cloud; a power cut makes it shorter where it must end.
const LONG: u32 = 90;
const SHORT: u32 = 3;

fn fixed(host: u8, gateway: u8) -> Value {
    json!({
        "addresses": [{
            "address": format!("192.168.77.{host}"),
            "prefix_len": 24,
            "gateway": format!("192.168.77.{gateway}"),
        }],
        "dns": ["203.0.113.53"],
    })
}

/// What the cloud knows of each step of every change, newest first.
async fn history(lab: &Lab) -> Vec<String> {
    let path = format!("/v1/boxes/{}/timeline?limit=200", lab.box_id());
    let timeline = lab.operator().get(&path).await.expect("a timeline");
    let items = timeline["items"].as_array().expect("items");
    let steps = items.iter().filter(|item| item["kind"] == "network");
    steps
        .map(|item| {
            item["detail"]["state"]
                .as_str()
                .expect("a state")
                .to_owned()
        })
        .collect()
}

/// Has the cloud want it; the number of the change.
async fn wish(lab: &Lab, settings: &Value) -> u64 {
    let path = format!("/v1/boxes/{}/network", lab.box_id());
    let seen = lab.operator().put(&path, settings).await.expect("wanted");
    seen["wanted"]["change"].as_u64().expect("a number")
}

async fn cloud_hears(lab: &Lab, change: u64, state: &str) -> Value {
    let path = format!("/v1/boxes/{}/network", lab.box_id());
    let heard = longhaul_sim::wait::until(
        "the cloud to hear it",
        std::time::Duration::from_secs(90),
        || async {
            let seen = lab.operator().get(&path).await.map_err(|e| e.to_string())?;
            if seen["last"]["state"] == state
                && seen["last"]["change"] == change
                && seen["taken"] == true
            {
                Ok(seen)
            } else {
                Err(seen.to_string())
            }
        },
    );
    heard.await.expect("heard")
}

/// Runs a story in a lab of its own, whose box is online as it was prepared; the thread takes its
/// namespace before any other is made.
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
        let mut lab = Lab::start_fixed(folder.path(), programs, LONG)
            .await
            .expect("a lab");
        lab.admit().await.expect("admitted");
        lab.plug_fixed().await.expect("plugged in");
        lab.shows(&Reading::Well)
            .await
            .expect("online as it was prepared");
        story(&mut lab).await;
    });
}

/// Sends the form of the box's page at `host`, as a browser beside it would; the answer's code.
async fn send_form(lab: &Lab, host: &str, fields: &[(&str, &str)]) -> u16 {
    // One that is there already is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(std::time::Duration::from_secs(30))
        .build()
        .expect("a client");
    let url = format!("http://{host}/network");
    let page = client.get(&url).send().await.expect("the page");
    let page = page.text().await.expect("text");
    let (_, token) = page.split_once("name=\"token\" value=\"").expect("a token");
    let token = token.split('"').next().expect("a token");
    let code = lab.claim_code().expect("printed on the box");
    let mut body = format!("token={token}&claim={code}");
    for (name, value) in fields {
        let _ = write!(body, "&{name}={value}");
    }
    let sent = client
        .post(&url)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("origin", format!("http://{host}"))
        .body(body)
        .send();
    sent.await.expect("an answer").status().as_u16()
}

#[test]
fn a_wrong_address_set_from_afar_goes_back_by_itself_and_a_right_one_stays() {
    in_a_lab(async |lab| {
        lab.has_address("192.168.77.100/24")
            .await
            .expect("the factory's address");

        // A right one stays, also after a power cut.
        let change = wish(lab, &fixed(60, 1)).await;
        lab.change_is(change, "kept").await.expect("kept");
        lab.has_address("192.168.77.60/24")
            .await
            .expect("the new address");
        cloud_hears(lab, change, "kept").await;
        lab.kill_box().await.expect("killed");
        lab.power_up().await.expect("up");
        lab.has_address("192.168.77.60/24")
            .await
            .expect("still there");
        lab.shows(&Reading::Well).await.expect("online with it");

        // A gateway that is nobody: the box goes away, the power goes, and it is back as before.
        let change = wish(lab, &fixed(50, 77)).await;
        let trial = lab.change_is(change, "trial").await.expect("tried");
        assert!(
            trial["left_secs"]
                .as_u64()
                .is_some_and(|left| left <= LONG.into()),
            "{trial}"
        );
        lab.has_address("192.168.77.50/24")
            .await
            .expect("the wrong address");
        lab.kill_box().await.expect("killed");
        lab.trial_secs(SHORT);
        lab.power_up().await.expect("up");
        lab.change_is(change, "rolled_back").await.expect("back");
        lab.has_address("192.168.77.60/24")
            .await
            .expect("the address before");
        let heard = cloud_hears(lab, change, "rolled_back").await;
        let reason = heard["last"]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("not reached"), "{heard}");

        // Without a power cut, too; and the next thing that is wanted does not try it again.
        let change = wish(lab, &fixed(51, 77)).await;
        lab.change_is(change, "rolled_back").await.expect("back");
        lab.has_address("192.168.77.60/24")
            .await
            .expect("the address before");
        lab.shows(&Reading::Well).await.expect("online again");
        cloud_hears(lab, change, "rolled_back").await;
        let pause = format!("/v1/boxes/{}/uplink/pause", lab.box_id());
        lab.operator().order(&pause).await.expect("paused");
        cloud_hears(lab, change, "rolled_back").await;

        let steps = history(lab).await;
        assert_eq!(
            steps,
            [
                "rolled_back",
                "trial",
                "rolled_back",
                "trial",
                "kept",
                "trial"
            ],
            "each once"
        );
        let path = format!("/v1/boxes/{}/network", lab.box_id());
        let refused = lab
            .operator()
            .put(&path, &fixed(0, 1))
            .await
            .expect_err("no host");
        assert!(refused.to_string().contains("broadcast"), "{refused}");
    });
}

#[test]
fn the_claim_code_sets_an_address_on_the_boxs_page_and_a_wrong_one_goes_back() {
    in_a_lab(async |lab| {
        lab.open_the_way_in().await.expect("a way in");
        let right = [
            ("how", "fixed"),
            ("address", "192.168.77.70"),
            ("mask", "255.255.255.0"),
            ("gateway", "192.168.77.1"),
            ("dns", "203.0.113.53"),
        ];
        assert_eq!(send_form(lab, "192.168.77.100", &right).await, 202);
        lab.change_is(0, "kept").await.expect("kept");
        lab.has_address("192.168.77.70/24")
            .await
            .expect("the new address");
        cloud_hears(lab, 0, "kept").await;

        let wrong = right.map(|(name, value)| match name {
            "gateway" => (name, "192.168.77.77"),
            _ => (name, value),
        });
        assert_eq!(send_form(lab, "192.168.77.70", &wrong).await, 202);
        lab.change_is(0, "trial").await.expect("tried");
        lab.kill_box().await.expect("killed");
        lab.trial_secs(SHORT);
        lab.power_up().await.expect("up");
        lab.change_is(0, "rolled_back").await.expect("back");
        lab.shows(&Reading::Well).await.expect("online again");
        cloud_hears(lab, 0, "rolled_back").await;
        assert_eq!(
            history(lab).await,
            ["rolled_back", "trial", "kept", "trial"],
            "each once"
        );
    });
}
