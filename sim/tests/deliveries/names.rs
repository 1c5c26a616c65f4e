//! Names that some systems cannot tell apart: their owner hears of them, and so do the operators.

use std::time::Duration;

use longhaul_sim::lan_box::arg;
use longhaul_sim::site::{Plan, Site};
use longhaul_sim::wait::until;

const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn names_that_clash_are_in_the_boxs_timeline_and_not_only_in_the_customers_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        supervised: false,
        ..Plan::default()
    };
    let site = Site::stand(folder.path(), plan).await.expect("a site");
    let customer = site.customer();
    let source = site.stage.path("customer");
    std::fs::create_dir(&source).expect("a folder");
    // The same letters in another case, and the same letter in two encodings.
    for name in [
        "Report.txt",
        "report.TXT",
        "caf\u{e9}.txt",
        "cafe\u{301}.txt",
    ] {
        std::fs::write(source.join(name), name).expect("written");
    }

    let pushed = customer
        .run(["push", arg(&source), "--json", "--patience=60"])
        .await
        .expect("started");

    assert!(
        !pushed.status.success(),
        "one of two encodings is refused: {pushed:?}"
    );
    let told = until("both clashes in the timeline", PATIENCE, || async {
        let notices = site.operator.timeline(&site.box_id, "notice").await;
        let notices = notices.map_err(|e| e.to_string())?;
        let text = serde_json::Value::from(notices).to_string();
        let both =
            text.contains("upper and lower case alone") && text.contains("looks the same as");
        if both { Ok(text) } else { Err(text) }
    });
    let told = told.await.expect("operators see them");
    assert!(told.contains("survey"), "the bucket is named: {told}");

    // And by signs that stand for letters: angstrom, ohm, kelvin.
    let signs = site.stage.path("signs");
    std::fs::create_dir(&signs).expect("a folder");
    for name in [
        "\u{c5}.txt",
        "\u{212b}.txt",
        "100 \u{3a9}.txt",
        "100 \u{2126}.txt",
        "300 K.txt",
        "300 \u{212a}.txt",
    ] {
        std::fs::write(signs.join(name), name).expect("written");
    }
    let push = ["push", arg(&signs), "--patience=60"];
    let report = customer.json(3, &push).await.expect("some are refused");
    let failed = report["failed"].as_array().expect("a list");
    assert_eq!(failed.len(), 3, "one of each two: {report}");
    let lint = ["lint", arg(&signs)];
    let found = customer.json(3, &lint).await.expect("named before");
    let findings = found["findings"].as_array().expect("a list");
    let same = findings.iter().filter(|f| f["problem"] == "lookalike");
    assert_eq!(same.count(), 3, "{found}");
    site.stop().await.expect("they stop when asked");
}
