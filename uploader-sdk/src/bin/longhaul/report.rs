//! `--report FILE`: one JSON object per file and line, for programs that look at single files.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use longhaul_sdk::{FailedFile, GetReport, PushReport};
use serde::Serialize;
use serde_json::Value;

use crate::exit::Failure;

/// Writes `lines` where the user wants a report.
pub fn write(path: Option<&Path>, lines: Vec<Value>) -> Result<(), Failure> {
    let Some(path) = path else {
        return Ok(());
    };
    let written = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        for line in lines {
            writeln!(file, "{line}")?;
        }
        file.flush()
    };
    written().map_err(|error| {
        let message = format!("failed to write the report {}: {error}", path.display());
        Failure::failed(&std::io::Error::new(error.kind(), message))
    })
}

/// The lines of a push: `result` is `safe`, `failed` or `left_out`.
pub fn push(report: &PushReport) -> Vec<Value> {
    let safe = report.files.iter().map(|file| line("safe", file));
    let left_out = report.skipped.iter().map(|file| line("left_out", file));
    safe.chain(failed(&report.failed)).chain(left_out).collect()
}

/// The lines of a get: `result` is `here` or `failed`.
pub fn get(report: &GetReport) -> Vec<Value> {
    let here = report.files.iter().map(|file| line("here", file));
    here.chain(failed(&report.failed)).collect()
}

fn failed(files: &[FailedFile]) -> impl Iterator<Item = Value> {
    files.iter().map(|file| line("failed", file))
}

fn line(result: &str, file: &impl Serialize) -> Value {
    let mut line = serde_json::to_value(file).unwrap_or_default();
    line["result"] = result.into();
    line
}
