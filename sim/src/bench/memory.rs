//! Memory of the box at full speed, and what it grows with.

use std::path::Path;

use super::rig::Rig;
use super::row::{Better, Metric};
use super::{Bench, BenchError, cpu, float, remove};
use crate::files::{self, FolderPlan};

const PEAK: Metric = Metric {
    name: "most memory of the box at full speed: large files",
    unit: "MiB",
    better: Better::Lower,
    target: Some(256.0),
};
const BY_SIZE: Metric = Metric {
    name: "the same, more of it for a file ten times as long",
    target: None,
    ..PEAK
};
const HUNDRED_THOUSAND: Metric = Metric {
    name: "most memory of the box at full speed: 100,000 objects",
    ..PEAK
};
const MILLION: Metric = Metric {
    name: "most memory of the box at full speed: a million objects",
    ..PEAK
};
const BY_COUNT: Metric = Metric {
    name: "the same, more of it for each further object",
    unit: "bytes",
    target: None,
    ..PEAK
};
const MIB: f64 = 1_048_576.0;
/// Bytes of a small file.
const SMALL: usize = 1 << 10;

pub async fn measure(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let large: u64 = bench.settings.size(1 << 30, 64 << 20);
    let count: usize = bench.settings.size(10_000, 100);
    bench.note(format!(
        "VmHWM, set back before each step: a file of {} MiB, one of {} MiB; {count} files of 1 KiB, then {} more, \
         then {} more; the cloud is stopped",
        large >> 20,
        10 * (large >> 20),
        9 * count,
        90 * count,
    ));
    let mut rig = Rig::stand(bench, (20 * large).max(8 << 30), None).await?;
    rig.go_offline().await?;
    let mut steps = Vec::new();
    for (name, small, large_bytes) in [
        ("large", 0, large),
        ("larger", 0, 10 * large),
        ("few", count, 0),
        ("many", 9 * count, 0),
        ("most", 90 * count, 0),
    ] {
        let folder = bench.path("customer");
        let plan = FolderPlan {
            small,
            small_bytes: (SMALL, SMALL),
            large_bytes,
            seed: bench.settings.seed,
        };
        files::make(&folder, plan).map_err(BenchError::io("make files"))?;
        let peak = pushed(&rig, &folder, name).await?;
        bench.note(format!("{name}: {:.0} MiB", peak / MIB));
        steps.push(peak);
        remove(&folder)?;
    }
    rig.stop().await?;
    let [large, larger, few, many, most] = steps[..] else {
        return Err(BenchError::Unexpected("five steps were made".to_owned()));
    };
    bench.add(PEAK, &[large.max(larger) / MIB], &[]);
    bench.add(BY_SIZE, &[(larger - large) / MIB], &[]);
    bench.add(HUNDRED_THOUSAND, &[many.max(few) / MIB], &[]);
    bench.add(MILLION, &[most / MIB], &[]);
    bench.add(BY_COUNT, &[(most - few) / float(99 * count as u64)], &[]);
    Ok(())
}

/// The most memory that the box had during one push, in bytes.
async fn pushed(rig: &Rig, folder: &Path, prefix: &str) -> Result<f64, BenchError> {
    let id = rig.id()?;
    rig.rest().await?;
    cpu::reset_peak(id).map_err(BenchError::io("set the peak back"))?;
    rig.push(folder, prefix, false).run(rig.logs()).await?;
    let peak = cpu::peak_memory(id).map_err(BenchError::io("read the peak"))?;
    Ok(float(peak))
}
