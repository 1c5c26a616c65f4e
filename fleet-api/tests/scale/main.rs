//! Several processes share a database and a NATS cluster: any of them is killed, and nothing that was
//! acknowledged is lost. Everything here is real: three `nats-server`, PostgreSQL, two edges, two
//! workers, one process for people, and boxes over mutual TLS.

mod boxes;
#[path = "../../src/store/testing/postgres.rs"]
mod database;
mod permissions;
mod process;
mod servers;
mod story;
mod system;

use std::time::Duration;

/// How long anything here may take on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// Asks until the answer is `Ok`; what it was instead is said at the end.
///
/// # Panics
///
/// Where it never is.
pub async fn until<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let begun = std::time::Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(seen) if begun.elapsed() > PATIENCE => panic!("{what}: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(30)).await,
        }
    }
}
