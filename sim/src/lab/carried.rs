//! A box that nobody reaches by wire: what people carry to it and from it.

use std::path::PathBuf;

use serde_json::Value;

use super::{Lab, file, wait_for};
use crate::system::SystemError;
use crate::wait::until;

/// The address that the box gives itself where nobody else does.
pub const DIRECT: &str = "169.254.10.1";

impl Lab {
    /// Plugs a stick in; its folder.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub fn plug_stick(&self, name: &str) -> Result<PathBuf, SystemError> {
        let path = self.stage.path("sticks").join(name);
        std::fs::create_dir_all(&path).map_err(|source| file(&path, source))?;
        Ok(path)
    }

    /// A path below the lab's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.stage.path(name)
    }

    /// Waits until the box's own status is as wanted; what it says.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn says(
        &self,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, SystemError> {
        let socket = self.stage.path("box/run/status.sock");
        let (socket, wanted) = (&socket, &wanted);
        let said = until(what, super::PATIENCE, || async move {
            let status = super::ask(socket).await.map_err(|e| e.to_string())?;
            if wanted(&status) {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        });
        Ok(said.await?)
    }

    /// Waits until the agent has ended by itself.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn ends(&mut self) -> Result<(), SystemError> {
        let Some(mut device) = self.device.take() else {
            return Ok(());
        };
        let device = std::cell::RefCell::new(&mut device);
        wait_for("the agent to end", async || {
            match device.borrow_mut().check() {
                Ok(()) => Err("it runs".to_owned()),
                Err(_) => Ok(()),
            }
        })
        .await
    }

    /// Connects a laptop to the box by a cable of its own, with addresses that both gave themselves; or
    /// pulls it.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn direct_cable(&self, there: bool) -> Result<(), SystemError> {
        let (deed, link) = if there {
            ("add", "up")
        } else {
            ("del", "down")
        };
        let laptop = format!("ip addr {deed} 169.254.10.2/16 dev lan0; ip link set lan0 {link}");
        self.router.run(&laptop).await?;
        let own = format!("ip addr {deed} {DIRECT}/16 dev eth0");
        self.inside.run(&own).await
    }

    /// Runs the customer's command line on that laptop.
    ///
    /// # Errors
    ///
    /// [`SystemError`] with what it printed where it failed.
    pub async fn laptop(&self, name: &str, arguments: &[String]) -> Result<String, SystemError> {
        let beside = self.stage.clone().within(self.router.entry());
        beside.run(name, "longhaul", arguments).await
    }

    /// Runs the customer's command line on a computer with a cable to the box and nothing else.
    ///
    /// # Errors
    ///
    /// [`SystemError`] with what it printed where it failed.
    pub async fn customer(&self, name: &str, arguments: &[String]) -> Result<String, SystemError> {
        let beside = self.stage.clone().within(self.inside.entry());
        beside.run(name, "longhaul", arguments).await
    }
}
