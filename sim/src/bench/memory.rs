//! Memory of the box at full speed, and what it grows with.

use std::path::Path;

use super::rig::Rig;
use super::row::{Better, Metric};
use super::{Bench, BenchError, cpu, float, remove};
use crate::files::{self, FolderPlan};

const PEAK: Metric = Metric {
    name: "most memory of the box at full speed",
    unit: "MiB",
    better: Better::Lower,
    target: Some(256.0),
};
const BY_SIZE: Metric = Metric {
    name: "the same, more of it for a file four times as long",
    target: None,
    ..PEAK
};
const BY_COUNT: Metric = Metric {
    name: "the same, more of it for each further object",
    unit: "bytes",
    target: None,
    ..PEAK
};
const MIB: f64 = 1_048_576.0;

pub async fn measure(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let large: u64 = bench.settings.size(1 << 30, 64 << 20);
    let count: usize = bench.settings.size(20_000, 500);
    bench.note(format!(
        "VmHWM, set back before each step: a file of {} MiB, one of {} MiB, {count} files of 10 KiB, {} more; the cloud is stopped",
        large >> 20,
        large >> 18,
        3 * count,
    ));
    let mut rig = Rig::stand(bench, (16 * large).max(8 << 30), None).await?;
    rig.go_offline().await?;
    let mut steps = Vec::new();
    for (name, small, large_bytes) in [
        ("large", 0, large),
        ("larger", 0, 4 * large),
        ("few", count, 0),
        ("many", 3 * count, 0),
    ] {
        let folder = bench.path("customer");
        let plan = FolderPlan {
            small,
            small_bytes: (10 << 10, 10 << 10),
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
    let [large, larger, few, many] = steps[..] else {
        return Err(BenchError::Unexpected("four steps were made".to_owned()));
    };
    let most = steps.iter().copied().fold(0.0, f64::max);
    bench.add(PEAK, &[most / MIB], &[]);
    bench.add(BY_SIZE, &[(larger - large) / MIB], &[]);
    bench.add(BY_COUNT, &[(many - few) / float(3 * count as u64)], &[]);
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
