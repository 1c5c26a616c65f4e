//! Wakes the agent when the network changes, and tells it where the data plane is.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::Event;
use crate::proxy::ProxySetting;
use crate::rungs::{LinkNews, Neighbours, Network};

/// The kernel is asked at least this often, in case that it announces nothing.
const LOOK: Duration = Duration::from_secs(2);
/// Neighbours are asked this often: a gateway can fall silent while its cable holds.
const PATROL: u32 = 2;
/// An interface that comes up changes several times within this.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches until told to stop, or until the agent is gone.
pub(super) async fn watch(
    events: mpsc::Sender<Event>,
    mut data: watch::Receiver<Option<SocketAddr>>,
    proxy: ProxySetting,
    shutdown: CancellationToken,
) {
    let news = LinkNews::subscribe()
        .inspect_err(|error| tracing::warn!(%error, "the kernel announces no link changes"))
        .ok();
    let mut seen: Option<(Network, Neighbours)> = None;
    let mut neighbours = Neighbours::default();
    let mut round = 0_u32;
    loop {
        let network = Network::read();
        let moved = seen.as_ref().is_none_or(|(before, _)| *before != network);
        if moved || round.is_multiple_of(PATROL) {
            let asked = network.ask_neighbours();
            tokio::select! {
                () = shutdown.cancelled() => return,
                asked = asked, if !moved => neighbours = asked,
                // The agent climbs at once, and asks for itself.
                () = std::future::ready(()), if moved => neighbours = Neighbours::default(),
            }
        }
        round = round.wrapping_add(1);
        let now = (network, neighbours.clone());
        let mut told = Vec::new();
        if seen.as_ref().is_some_and(|before| differs(before, &now)) | proxy.reload() {
            told.push(Event::LinkChanged);
        }
        if let Some(bound) = *data.borrow_and_update() {
            told.push(Event::LanUrls(super::lan_urls(bound)));
        }
        seen = Some(now);
        for event in told {
            if events.send(event).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
            () = announced(news.as_ref()) => tokio::time::sleep(SETTLE).await,
            Ok(()) = data.changed() => {}
        }
    }
}

/// Whether the agent should look; neighbours that were not asked yet are no news.
fn differs(before: &(Network, Neighbours), now: &(Network, Neighbours)) -> bool {
    let answers = before.1.gateway.zip(now.1.gateway);
    before.0 != now.0
        || before.1.conflict.is_some() != now.1.conflict.is_some()
        || answers.is_some_and(|(before, now)| before != now)
}

async fn announced(news: Option<&LinkNews>) {
    let heard = match news {
        Some(news) => news.changed().await,
        None => std::future::pending().await,
    };
    if let Err(error) = heard {
        tracing::warn!(%error, "link changes are not heard");
        std::future::pending::<()>().await;
    }
}
