//! What every indicator of the box shows: screen, page, mDNS, console and LED say the same.

use std::time::Duration;

use longhaul_protocol::diag::{Code, RungReport, RungStatus};
use longhaul_protocol::lan::LanStatus;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::console::Status;

/// An indicator that could not show something tries again after this.
const AGAIN: Duration = Duration::from_secs(30);

/// The box's state, as short as a lamp can say it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shown {
    /// It is being looked for: this is the one.
    Here,
    /// What does not hold: the first such rung, or what its deliveries wait for.
    Code(Code),
    /// Every rung holds.
    Online,
    /// Neither is known yet.
    Starting,
}

impl Shown {
    /// What a box with this status shows.
    pub fn of(status: &LanStatus) -> Self {
        if status.identifying {
            return Self::Here;
        }
        let holds = |rung: &RungReport| rung.status == RungStatus::Ok;
        match status.code() {
            Some(code) => Self::Code(code),
            None if !status.rungs.is_empty() && status.rungs.iter().all(holds) => Self::Online,
            None => Self::Starting,
        }
    }
}

/// Something that shows it, beside the box's screen, page and mDNS record.
pub trait Indicator: Send + 'static {
    /// Shows it; may block for a moment. Whether it is shown: what cannot be now is tried again.
    fn show(&mut self, shown: Shown) -> bool;
}

/// Keeps an indicator up to date until told to stop. Nothing that it does ends the agent.
pub async fn follow(
    indicator: impl Indicator,
    status: watch::Receiver<Status>,
    shutdown: CancellationToken,
) {
    follow_trying(indicator, status, AGAIN, shutdown).await;
}

async fn follow_trying(
    mut indicator: impl Indicator,
    mut status: watch::Receiver<Status>,
    pause: Duration,
    shutdown: CancellationToken,
) {
    let mut there: Option<Shown> = None;
    loop {
        let wanted = Shown::of(&status.borrow_and_update().lan);
        if there != Some(wanted) {
            let shown = tokio::task::spawn_blocking(move || {
                let done = indicator.show(wanted);
                (indicator, done)
            });
            let Ok((back, done)) = shown.await else {
                return shutdown.cancelled().await;
            };
            indicator = back;
            there = done.then_some(wanted);
        }
        let again = async {
            match there {
                Some(_) => std::future::pending().await,
                None => tokio::time::sleep(pause).await,
            }
        };
        let other = |status: &Status| there.is_some_and(|shown| shown != Shown::of(&status.lan));
        let changed = async { status.wait_for(other).await.is_ok() };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = again => {}
            goes_on = changed => {
                if !goes_on {
                    return shutdown.cancelled().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use longhaul_protocol::diag::CODES;

    use super::*;
    use crate::console::{render, tests::status};
    use crate::led::{digits, pattern};
    use crate::{discovery, page, screen};

    #[test]
    fn every_indicator_shows_the_same_code() {
        let mut status = status();
        status.lan.identifying = false;
        for entry in CODES {
            let text = format!("LH-{}", entry.number);
            status.lan.rungs[0].status = RungStatus::Failed;
            status.lan.rungs[0].code = text.parse().ok();

            let shown = Shown::of(&status.lan);

            let Shown::Code(code) = shown else {
                panic!("{shown:?}");
            };
            assert_eq!(code.to_string(), text);
            assert!(page::main(&status).contains(&format!("\"code\">{text}<")));
            assert!(screen::draw(&status).contains(&screen::word(&text)));
            let console = render(&status, longhaul_protocol::value::UnixMillis(0));
            assert!(console.contains(&text), "{console}");
            let announced = discovery::announcement(&status.lan).code;
            assert_eq!(announced, Some(code));
            let read: String = digits(&pattern(shown))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(format!("LH-{read}"), text);
        }
    }

    #[test]
    fn a_box_that_is_looked_for_says_so_whatever_is_wrong() {
        let mut status = status();
        status.lan.identifying = true;
        assert_eq!(Shown::of(&status.lan), Shown::Here);
        status.lan.identifying = false;
        for rung in &mut status.lan.rungs {
            rung.status = RungStatus::Ok;
            rung.code = None;
        }
        assert_eq!(Shown::of(&status.lan), Shown::Online);
        status.lan.rungs.clear();
        assert_eq!(Shown::of(&status.lan), Shown::Starting);
    }

    /// Fails as often as it is told to.
    struct Stubborn(usize, tokio::sync::mpsc::UnboundedSender<Shown>);

    impl Indicator for Stubborn {
        fn show(&mut self, shown: Shown) -> bool {
            let _ = self.1.send(shown);
            self.0 = self.0.saturating_sub(1);
            self.0 == 0
        }
    }

    #[tokio::test]
    async fn what_could_not_be_shown_is_shown_later() {
        let (sender, receiver) = watch::channel(status());
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let following = tokio::spawn(follow_trying(
            Stubborn(3, said),
            receiver,
            Duration::from_millis(1),
            stop.clone(),
        ));

        for _ in 0..3 {
            assert_eq!(heard.recv().await, Some(Shown::Here));
        }
        sender.send_modify(|status| status.lan.identifying = false);
        assert!(matches!(heard.recv().await, Some(Shown::Code(_))));
        stop.cancel();
        following.await.unwrap();
        assert_eq!(heard.recv().await, None);
    }
}
