//! How fast the vault takes objects, per second and per CPU second.
//!
//! `cargo run --release -p longhaul-vault --example throughput -- DIR`, on the disk to be measured.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use longhaul_vault::{Checksums, Condition, Error, JobId, Metadata, Vault, VaultConfig};
use nix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

/// The longest that anybody waited for an object to be durable, in microseconds.
static LONGEST_WAIT: AtomicU64 = AtomicU64::new(0);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: throughput DIR")?);
    many_objects(&dir)?;
    for (label, direct_io) in [("direct", true), ("buffered", false)] {
        let path = dir.join(format!("vault-{label}"));
        let config = VaultConfig {
            direct_io,
            ..VaultConfig::new(&path, 16 << 30)
        };
        let (vault, _) = Vault::open(config, &Zeroizing::new([1; 32]), Arc::new(|| 0))?;
        for writers in [1, 4] {
            measure(
                &format!("{label}: 64 MiB objects, {writers} writers"),
                || put_all(&vault, writers, 16 / writers, 64 << 20, 1 << 20),
            )?;
        }
        if direct_io {
            for writers in [1, 16, 64, 256] {
                measure(
                    &format!("{label}: 10 KiB objects, {writers} writers"),
                    || put_all(&vault, writers, 100 * writers.isqrt(), 10 << 10, 10 << 10),
                )?;
            }
            measure("read back everything (scrub)", || {
                let report = vault.scrub();
                assert!(report.damaged.is_empty(), "{:?}", report.damaged);
                Ok((report.objects, report.bytes))
            })?;
        }
        drop(vault);
        std::fs::remove_dir_all(path)?;
    }
    Ok(())
}

/// A million small objects: memory, checkpoint, restart, a page of the list.
fn many_objects(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let path = dir.join("vault-many");
    let open = || {
        let config = VaultConfig::new(&path, 16 << 30);
        Vault::open(config, &Zeroizing::new([1; 32]), Arc::new(|| 0))
    };
    let (vault, _) = open()?;
    for round in 0..8 {
        measure("100 byte objects, 128 writers", || {
            put_round(&vault, round, 128, 1024, (100, 100))
        })?;
        println!(
            "{} objects: {} KiB of memory",
            vault.stats().objects,
            resident_bytes()? >> 10
        );
        // The index in memory is written to the disk several times in a round: nobody may stand still.
        #[expect(clippy::cast_precision_loss, reason = "for people to read")]
        let longest = LONGEST_WAIT.swap(0, Ordering::Relaxed) as f64 / 1e3;
        println!("the longest that a writer waited: {longest:.1} ms");
    }
    let objects = vault.stats().objects;
    let timed = |what: &str, begin: Instant| {
        println!(
            "{objects} objects: {what} takes {:.3} s",
            begin.elapsed().as_secs_f64()
        );
    };
    measure("a checkpoint", || {
        vault.checkpoint().map(|()| (objects, objects))
    })?;
    drop(vault);
    let (mut opened, begin) = (None, Instant::now());
    measure("opening", || {
        opened = open().ok();
        Ok((objects, objects))
    })?;
    timed("opening", begin);
    let (vault, report) = opened.ok_or("the vault does not open")?;
    println!("{report:?}");
    let begin = Instant::now();
    vault.list(
        &JobId::default(),
        "3/100-128/5",
        Some("3/100-128/50/77"),
        1000,
    )?;
    timed("a page of the list", begin);
    let begin = Instant::now();
    let mut after = None;
    while let Some(last) = vault.pending(after, 1000).last() {
        after = Some(last.version);
    }
    timed("all that is to be delivered, by the thousand,", begin);
    println!("{} KiB of memory", resident_bytes()? >> 10);
    drop(vault);
    std::fs::remove_dir_all(path)?;
    Ok(())
}

fn resident_bytes() -> Result<u64, Box<dyn std::error::Error>> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split(' ').nth(1).ok_or("statm is short")?.parse()?;
    Ok(pages * 4096)
}

/// Runs `work`, which says how many objects and bytes it moved, and prints what it took.
fn measure(
    what: &str,
    work: impl FnOnce() -> Result<(u64, u64), Error>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (begin, cpu) = (Instant::now(), cpu_time()?);
    let (objects, bytes) = work()?;
    let (wall, cpu) = (
        begin.elapsed().as_secs_f64(),
        cpu_time()?.saturating_sub(cpu).as_secs_f64(),
    );
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    let (objects, gigabytes) = (objects as f64, bytes as f64 / 1e9);
    println!(
        "{what}: {:.2} GB/s, {:.2} GB per CPU second, {:.0} objects/s, {:.3} ms CPU per object",
        gigabytes / wall,
        gigabytes / cpu,
        objects / wall,
        cpu * 1e3 / objects,
    );
    Ok(())
}

fn cpu_time() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from)
}

fn put_all(
    vault: &Vault,
    writers: usize,
    objects: usize,
    size: usize,
    piece: usize,
) -> Result<(u64, u64), Error> {
    put_round(vault, 0, writers, objects, (size, piece))
}

fn put_round(
    vault: &Vault,
    round: usize,
    writers: usize,
    objects: usize,
    (size, piece): (usize, usize),
) -> Result<(u64, u64), Error> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                scope.spawn(move || {
                    let data: Vec<u8> = (0..=250).cycle().step_by(31).take(piece).collect();
                    for object in 0..objects {
                        let key = format!("{round}/{size}-{writers}/{writer}/{object}");
                        let mut out = vault.begin(&JobId::default(), &key, Metadata::default())?;
                        for _ in 0..size / piece {
                            out.write(&data)?;
                        }
                        let begin = Instant::now();
                        out.finish(Checksums::new(), Condition::Any).wait()?;
                        let waited = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
                        LONGEST_WAIT.fetch_max(waited, Ordering::Relaxed);
                    }
                    Ok::<(), Error>(())
                })
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_| Error::Closed)??;
        }
        Ok((
            (writers * objects) as u64,
            (writers * objects * size) as u64,
        ))
    })
}
