//! The box updates itself, and goes back by itself.

use std::path::Path;

use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::operator::Operator;
use longhaul_sim::releases::{Contents, runs};
use longhaul_sim::system::{Stage, SystemError};

use crate::{BUCKET, Journey};

/// A release that is the same program under another name.
const GOOD: &str = "1.1.0";
/// A release that fails.
const BAD: &str = "1.2.0";

/// A good release is kept, a bad one is not, and customers notice neither.
pub async fn update(
    stage: &Stage,
    operator: &Operator,
    (box_id, ticket): (&str, &Path),
    journey: &mut Journey,
) -> Result<(), SystemError> {
    journey
        .step("release is signed", async {
            let length = stage.sign_release(GOOD, Contents::Good).await?;
            let mib = length >> 20;
            Ok(((), format!("{GOOD}, {mib} MiB, 2 of 3 keys agree")))
        })
        .await?;
    journey
        .step("box updates itself", async {
            let rollout = operator.roll_out(box_id, GOOD).await?;
            let ended = operator.rolled_out(&rollout).await?;
            expect("committed", &ended)?;
            let slots = runs(operator, box_id, GOOD).await?;
            let seen = format!("{GOOD} committed; slots {}", told(&slots));
            Ok(((), seen))
        })
        .await?;
    journey
        .step("bad release is signed", async {
            stage.sign_release(BAD, Contents::Bad).await?;
            Ok(((), format!("{BAD}, a program that fails")))
        })
        .await?;
    journey
        .step("box goes back by itself", async {
            let rollout = operator.roll_out(box_id, BAD).await?;
            let ended = operator.rolled_out(&rollout).await?;
            expect("rolled_back", &ended)?;
            let slots = runs(operator, box_id, GOOD).await?;
            let reason = ended["reason"].as_str().unwrap_or_default();
            let reason = reason.chars().take(90).collect::<String>();
            Ok(((), format!("{reason}; slots {}", told(&slots))))
        })
        .await?;
    journey
        .step("box still takes files", async {
            let folder = stage.path("customer-later");
            let plan = FolderPlan {
                small: 20,
                small_bytes: (1_000, 20_000),
                large_bytes: 1 << 20,
                seed: 8,
            };
            let digests = files::make(&folder, plan).map_err(|source| SystemError::File {
                path: folder.clone(),
                source,
            })?;
            let arguments = [
                "push".to_owned(),
                format!("--ticket={}", ticket.display()),
                "--prefix=later".to_owned(),
                "--json".to_owned(),
                "--wait".to_owned(),
                folder.display().to_string(),
            ];
            stage.run("push-later", "longhaul", arguments).await?;
            for (name, digest) in &digests {
                let key = format!("later/{name}");
                if operator.object_digest(BUCKET, &key).await? != *digest {
                    return Err(SystemError::Unexpected {
                        what: "an object differs",
                        text: key,
                    });
                }
            }
            Ok(((), format!("{} more objects, byte for byte", digests.len())))
        })
        .await
}

fn expect(state: &str, ended: &serde_json::Value) -> Result<(), SystemError> {
    if ended["state"] == state {
        return Ok(());
    }
    Err(SystemError::Unexpected {
        what: "the update ended otherwise",
        text: ended.to_string(),
    })
}

fn told(slots: &serde_json::Value) -> String {
    let version = |slot: &str| slots[slot].as_str().unwrap_or("empty").to_owned();
    let active = slots["active"].as_str().unwrap_or("unknown");
    format!("a {}, b {}, {active} runs", version("a"), version("b"))
}
