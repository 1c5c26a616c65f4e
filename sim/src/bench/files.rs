//! The results' files in `docs/benchmarks/`.

use std::io;
use std::path::Path;

use super::report::{self, Detail, Machine, Subject};
use super::row::{Row, merged};
use super::{BenchError, cpu, plot};

/// Writes what stands behind one topic's rows: `details/{topic}.md`.
///
/// # Errors
///
/// [`BenchError::Io`].
pub fn write_detail(out: &Path, detail: &Detail, date: &str) -> Result<(), BenchError> {
    let folder = out.join("details");
    std::fs::create_dir_all(&folder).map_err(BenchError::io("make the folder of details"))?;
    let path = folder.join(format!("{}.md", detail.topic));
    std::fs::write(path, report::details(detail, date)).map_err(BenchError::io("write details"))
}

/// Writes the rows as JSON, page and picture, each called `name`, beside those of earlier runs
/// that were not measured again.
///
/// # Errors
///
/// [`BenchError`]; rows of an earlier run that cannot be read are not overwritten.
pub fn write_rows(
    out: &Path,
    name: &str,
    subject: &Subject,
    rows: Vec<Row>,
    cores: usize,
) -> Result<(), BenchError> {
    let path = out.join(format!("{name}.json"));
    let unreadable = |e: serde_json::Error| {
        BenchError::Unexpected(format!("failed to read {}: {e}", path.display()))
    };
    let old: Vec<Row> = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(unreadable)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(BenchError::io("read earlier rows")(error)),
    };
    let rows = merged(old, rows);
    let (processor, memory) =
        cpu::machine().map_err(BenchError::io("read what machine this is"))?;
    let machine = Machine {
        processor,
        cores,
        memory,
    };
    let picture = format!("{name}.svg");
    let page = report::page(subject, &rows, &machine, &picture);
    let json = serde_json::to_string_pretty(&rows).map_err(unreadable)? + "\n";
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(BenchError::io(format!("write {}", path.display())))
    };
    write(&out.join(picture), plot::svg(&rows))?;
    write(&out.join(format!("{name}.md")), page)?;
    write(&path, json)
}
