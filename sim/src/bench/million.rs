//! A million objects: a page of the list, and a restart. Straight at the vault, in this process:
//! through S3 it would take longer to put them there than all other benchmarks together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use longhaul_vault::{
    Checksums, Commit, Condition, JobId, Metadata, ObjectInfo, Vault, VaultConfig,
};
use zeroize::Zeroizing;

use super::row::{Better, Metric};
use super::{Bench, BenchError};

const LIST: Metric = Metric {
    name: "a million objects: a page of 1,000 (vault)",
    unit: "ms",
    better: Better::Lower,
    target: Some(50.0),
};
const RESTART: Metric = Metric {
    name: "a million objects: restart (vault)",
    unit: "s",
    better: Better::Lower,
    target: Some(5.0),
};
/// Objects that wait for their durability at a time.
const WINDOW: usize = 512;
const PAGES: usize = 21;

pub fn measure(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let count: usize = bench.settings.size(1_000_000, 20_000);
    bench.note(format!(
        "{count} objects of 100 bytes in a vault of this process's own; a restart reads checkpoint and log again"
    ));
    let config = VaultConfig::new(bench.path("vault"), 16 << 30);
    let key = Zeroizing::new([7; 32]);
    let job: JobId = "bench".parse().map_err(|_| failed("name a job")("bench"))?;
    let open = || {
        Vault::open(config.clone(), &key, Arc::new(|| 0))
            .map_err(|error| failed("open")(&super::chain(&error)))
    };

    let (vault, _) = open()?;
    vault
        .create_job(&job)
        .map_err(|e| failed("make a job")(&e.to_string()))?;
    let start = Instant::now();
    fill(&vault, &job, count)?;
    bench.note(format!("filled in {:.1} s", start.elapsed().as_secs_f64()));
    let pages = pages(&vault, &job, count)?;
    vault.close();
    drop(vault);

    let mut restarts = Vec::new();
    for _ in 0..bench.settings.runs() {
        let start = Instant::now();
        let (vault, report) = open()?;
        restarts.push(start.elapsed().as_secs_f64());
        let held = vault.stats().objects;
        if held != count as u64 {
            return Err(BenchError::Unexpected(format!(
                "{held} of {count} objects after a restart: {report:?}"
            )));
        }
    }
    bench.add(LIST, &pages, &[]);
    bench.add(RESTART, &restarts, &[]);
    Ok(())
}

fn name(index: usize) -> String {
    format!("line-{:04}/shot-{index:07}.seg", index / 1_000)
}

fn fill(vault: &Vault, job: &JobId, count: usize) -> Result<(), BenchError> {
    let mut waiting: VecDeque<Commit<ObjectInfo>> = VecDeque::new();
    let body = [42; 100];
    for index in 0..count {
        let put = vault
            .begin(job, &name(index), Metadata::default())
            .and_then(|mut writer| {
                writer.write(&body)?;
                Ok(writer.finish(Checksums::new(), Condition::Any))
            });
        waiting.push_back(put.map_err(|e| failed("take an object")(&e.to_string()))?);
        let full = waiting.len() >= WINDOW;
        if let Some(first) = full.then(|| waiting.pop_front()).flatten() {
            first
                .wait()
                .map_err(|e| failed("store an object")(&e.to_string()))?;
        }
    }
    for commit in waiting {
        commit
            .wait()
            .map_err(|e| failed("store an object")(&e.to_string()))?;
    }
    Ok(())
}

/// Milliseconds for each of some pages, spread over the whole list.
fn pages(vault: &Vault, job: &JobId, count: usize) -> Result<Vec<f64>, BenchError> {
    let mut times = Vec::new();
    for page in 0..PAGES {
        let after = name(page * (count / (PAGES + 1)));
        let start = Instant::now();
        let listed = vault
            .list(job, "", Some(&after), 1_000)
            .map_err(|e| failed("list")(&e.to_string()))?;
        times.push(1e3 * start.elapsed().as_secs_f64());
        drop(listed);
    }
    Ok(times)
}

fn failed(what: &'static str) -> impl Fn(&str) -> BenchError {
    move |why| BenchError::Vault {
        what,
        why: why.to_owned(),
    }
}
