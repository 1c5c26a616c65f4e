//! What a process has cost: processor time and memory, as the kernel counts them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Processor seconds of this process's children that have been waited for, and of theirs.
///
/// # Errors
///
/// What the system says.
pub fn of_children() -> io::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    seconds(&text, CHILDREN)
}

/// Processor seconds of a process, all threads, also those that have ended.
///
/// # Errors
///
/// What the system says; the process may have ended.
pub fn of_process(id: u32) -> io::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    seconds(&text, OWN)
}

/// Processor seconds of the process's living threads, those of one name together.
///
/// # Errors
///
/// What the system says; the process may have ended.
pub fn of_threads(id: u32) -> io::Result<BTreeMap<String, f64>> {
    let mut threads = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{id}/task"))? {
        // A thread may end while the list is read.
        let Ok(text) = std::fs::read_to_string(entry?.path().join("stat")) else {
            continue;
        };
        *threads.entry(thread_name(&text)).or_insert(0.0) += seconds(&text, OWN)?;
    }
    Ok(threads)
}

/// The most memory that a process has had since its start or [`reset_peak`], in bytes.
///
/// # Errors
///
/// What the system says; the process may have ended.
pub fn peak_memory(id: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    peak(&text).ok_or_else(|| malformed("VmHWM"))
}

/// The memory that a process has now, in bytes.
///
/// # Errors
///
/// What the system says; the process may have ended.
pub fn memory(id: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let resident = field(&text, "VmRSS").and_then(kib);
    resident.ok_or_else(|| malformed("VmRSS"))
}

/// Begins anew to watch for the most memory.
///
/// # Errors
///
/// What the system says.
pub fn reset_peak(id: u32) -> io::Result<()> {
    // 5: see `proc_pid_clear_refs(5)`.
    std::fs::write(format!("/proc/{id}/clear_refs"), "5")
}

/// The load of the last minute, as `uptime` shows it.
///
/// # Errors
///
/// What the system says.
pub fn load() -> io::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let first = text.split(' ').next().and_then(|t| t.parse().ok());
    first.ok_or_else(|| malformed("loadavg"))
}

/// The processor's name, and the memory in bytes.
///
/// # Errors
///
/// What the system says.
pub fn machine() -> io::Result<(String, u64)> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let name = field(&cpu, "model name").unwrap_or("unknown processor");
    let memory = std::fs::read_to_string(Path::new("/proc/meminfo"))?;
    let total = field(&memory, "MemTotal").and_then(kib);
    Ok((name.to_owned(), total.ok_or_else(|| malformed("MemTotal"))?))
}

/// Fields behind the name in `stat`, counted from 0: user and system time, see `proc_pid_stat(5)`.
const OWN: usize = 11;
const CHILDREN: usize = 13;
/// Ticks of the processor's time in a second, on every Linux that we run on (`USER_HZ`).
const TICKS: f64 = 100.0;

fn seconds(stat: &str, first: usize) -> io::Result<f64> {
    let ticks = ticks(stat, first).ok_or_else(|| malformed("stat"))?;
    Ok(super::float(ticks) / TICKS)
}

fn ticks(stat: &str, first: usize) -> Option<u64> {
    // The name may hold spaces and brackets; what follows its last one does not.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(first);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn thread_name(stat: &str) -> String {
    let name = stat
        .split_once('(')
        .and_then(|(_, rest)| rest.rsplit_once(')'))
        .map_or("", |(name, _)| name);
    // Workers are numbered; together they are one line of a profile.
    name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-')
        .to_owned()
}

fn peak(status: &str) -> Option<u64> {
    field(status, "VmHWM").and_then(kib)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn kib(value: &str) -> Option<u64> {
    let number: u64 = value.strip_suffix(" kB")?.parse().ok()?;
    number.checked_mul(1024)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no {what} in /proc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "42 (a) (b 1) S 1 42 42 0 -1 4194560 100 200 0 0 150 50 30 20 20 0 5 0 100 1 2";

    #[test]
    fn times_stand_behind_a_name_that_may_hold_anything() {
        assert_eq!(ticks(STAT, OWN), Some(200));
        assert_eq!(ticks(STAT, CHILDREN), Some(50));
        assert_eq!(ticks("garbage", OWN), None);
        assert_eq!(ticks("1 (a) S 1", OWN), None);
    }

    #[test]
    fn numbered_threads_share_a_name() {
        assert_eq!(thread_name("1 (tokio-rt-worker-12) S"), "tokio-rt-worker");
        assert_eq!(thread_name("1 (vault-log) S"), "vault-log");
    }

    #[test]
    fn the_peak_is_in_kib() {
        assert_eq!(peak("VmPeak:\t9 kB\nVmHWM:\t  2048 kB\n"), Some(2 << 20));
        assert_eq!(peak("VmHWM: lots"), None);
    }

    #[test]
    fn this_process_has_cost_something() {
        let me = std::process::id();
        assert!(peak_memory(me).expect("a peak") > 0);
        assert!(!of_threads(me).expect("threads").is_empty());
        assert!(of_process(me).expect("a time") >= 0.0);
    }
}
