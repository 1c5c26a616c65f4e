//! The end of an agent's log, kept while it is passed on.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;
use tokio::task::JoinHandle;

/// Bytes that are kept.
const TAIL: usize = 1024;

/// Reads an agent's log until it ends.
pub(super) struct LogTail {
    kept: Arc<Mutex<VecDeque<u8>>>,
    reader: JoinHandle<()>,
}

impl LogTail {
    pub fn follow(stderr: Option<ChildStderr>) -> Self {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let keep = Arc::clone(&kept);
        let reader = tokio::spawn(async move {
            let Some(mut stderr) = stderr else { return };
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut chunk).await {
                {
                    let mut kept = keep.lock();
                    kept.extend(&chunk[..read]);
                    let surplus = kept.len().saturating_sub(TAIL);
                    kept.drain(..surplus);
                }
                // Who reads it may be slow, which must not hold up the supervisor; or gone, which
                // must not hold up the agent.
                let bytes = chunk[..read].to_vec();
                let passed_on = move || std::io::stderr().write_all(&bytes);
                let _ = tokio::task::spawn_blocking(passed_on).await;
            }
        });
        Self { kept, reader }
    }

    /// The end of the log, on one line. Something that the agent left behind may hold it open: not
    /// for long.
    pub async fn text(&mut self) -> String {
        let _ = tokio::time::timeout(Duration::from_secs(1), &mut self.reader).await;
        let mut kept = self.kept.lock();
        let text = String::from_utf8_lossy(kept.make_contiguous()).into_owned();
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
        let line = lines.collect::<Vec<_>>().join(" | ");
        line.chars().filter(|c| !c.is_control()).collect()
    }
}
