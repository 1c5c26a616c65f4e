//! A customer's network without DHCP: the box was prepared with a fixed address, and its agent sets
//! the addresses of its interface itself.

use std::path::Path;

use serde_json::Value;

use super::{Lab, RESOLVER_V4, file, wait_for};
use crate::system::{Programs, SystemError};
use crate::wait::until;

/// What the factory writes into the box.
pub(super) const PREPARED: [&str; 3] = [
    "--address=192.168.77.100/24",
    "--gateway=192.168.77.1",
    "--dns=203.0.113.53",
];

impl Lab {
    /// The same lab, with a box that was prepared for a network without DHCP, and tries other settings
    /// for so many seconds.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn start_fixed(
        folder: &Path,
        programs: Programs,
        trial_secs: u32,
    ) -> Result<Self, SystemError> {
        debug_assert!(PREPARED[2].ends_with(RESOLVER_V4));
        Self::start_as(folder, programs, Some(trial_secs)).await
    }

    /// How long the box tries other settings, from its next start on.
    pub fn trial_secs(&mut self, secs: u32) {
        self.fixed = Some(secs);
    }

    /// Plugs the cable in; nobody gives out addresses.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn plug_fixed(&mut self) -> Result<(), SystemError> {
        self.router.run("ip link set lan0 up").await
    }

    /// Kills the box's agent. What the kernel was told stays, as after a crash.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn kill_box(&mut self) -> Result<(), SystemError> {
        if let Some(mut device) = self.device.take() {
            device.kill().await?;
        }
        Ok(())
    }

    /// Starts it again after a power cut: the kernel knows nothing any more.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn power_up(&mut self) -> Result<(), SystemError> {
        self.inside
            .run("ip address flush dev eth0 scope global; ip link del lhvlan 2>/dev/null || true")
            .await?;
        self.start_box()
    }

    /// Lets somebody outside look at the box's page, as a computer beside it would.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn open_the_way_in(&self) -> Result<(), SystemError> {
        super::sh("ip route replace 192.168.77.0/24 via 203.0.113.1").await
    }

    /// The code that is printed on the box.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub fn claim_code(&self) -> Result<String, SystemError> {
        let path = self.stage.path("log").join("factory-make.log");
        let text = std::fs::read_to_string(&path).map_err(|source| file(&path, source))?;
        let said = text.find('{').map(|at| &text[at..]).unwrap_or_default();
        let made: Option<Value> = serde_json::Deserializer::from_str(said)
            .into_iter()
            .next()
            .and_then(Result::ok);
        let code = made.and_then(|made| made["claim_code"].as_str().map(str::to_owned));
        code.ok_or(SystemError::Unexpected {
            what: "the factory says a claim code",
            text,
        })
    }

    /// Waits until the box itself says that its last change is this one (0: made at the box), and in this
    /// state; what it says.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn change_is(&self, change: u64, state: &str) -> Result<Value, SystemError> {
        let what = format!("the box to say that the change is {state}");
        let socket = self.stage.path("box/run/status.sock");
        let said = until(&what, super::PATIENCE, || async {
            let status = super::ask(&socket).await.map_err(|e| e.to_string())?;
            let said = status["lan"]["network"].clone();
            if said["state"] == state && said["change"] == change {
                Ok(said)
            } else {
                Err(said.to_string())
            }
        });
        Ok(said.await?)
    }

    /// Waits until the box has this address, and nobody's else.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn has_address(&self, address: &str) -> Result<(), SystemError> {
        wait_for(&format!("the address {address}"), async || {
            let seen = self
                .inside
                .output("ip -o -4 address show scope global")
                .await;
            let seen = seen.map_err(|e| e.to_string())?;
            if seen.lines().count() == 1 && seen.contains(&format!(" {address} ")) {
                Ok(())
            } else {
                Err(seen)
            }
        })
        .await
    }
}
