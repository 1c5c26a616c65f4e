//! Opens what keeps the box's own network settings, puts them in force, and takes changes on the page.

use std::path::PathBuf;

use longhaul_protocol::network_settings::NetworkSettings;
use tokio::sync::mpsc;

use super::Options;
use crate::agent::Event;
use crate::cloud::chain;
use crate::disk;
use crate::network::{Keeper, Machine, Ownership, Saved};
use crate::page::Desk;
use crate::papers::Papers;
use crate::proxy::ProxySetting;

/// Puts settings in force.
pub(super) struct Network {
    /// Where the keeper's memory lies.
    pub path: PathBuf,
    pub machine: Machine,
}

impl Network {
    /// Puts the settings in force, on the machine and for the proxy.
    pub async fn apply(
        &mut self,
        settings: &NetworkSettings,
        instead_of: &NetworkSettings,
        proxy: &ProxySetting,
    ) -> Result<(), String> {
        let applied = self.machine.apply(settings, instead_of).await;
        applied.map_err(|error| chain(&error))?;
        let preferred = proxy.prefer(settings.proxy.as_deref());
        preferred.map_err(|error| error.to_string())
    }
}

/// The keeper, over what was kept and prepared; the desk at the page; what does the work.
pub(super) fn open(
    options: &Options,
    papers: &Papers,
    events: &mpsc::Sender<Event>,
) -> (Keeper, Desk, Network) {
    let config = &options.config;
    let path = options.state.join("network.json");
    // A file that is no longer one must not keep the box from its way: it begins as it was prepared.
    let saved: Option<Saved> = disk::read_json(&path)
        .inspect_err(|error| tracing::error!(%error, "network settings are left out"))
        .unwrap_or_default();
    let ours = config.network_interface.is_some();
    let mut prepared = NetworkSettings::prepared(&papers.config);
    if !ours && prepared.touches_machine() {
        tracing::warn!("the factory's static network is not set: no network_interface");
        prepared = NetworkSettings::default();
    }
    let trial_secs = config.network_trial_secs.get();
    let keeper = Keeper::new(
        prepared,
        u64::from(trial_secs) * 1000,
        saved.unwrap_or_default(),
    )
    .always(ours && !config.network_dhcp.is_empty());
    let claim = papers.config.claim_code_sha256;
    let desk = Desk::new(claim, trial_secs, events.clone());
    let of = Ownership {
        interface: config.network_interface.clone(),
        dhcp: config.network_dhcp.clone(),
        resolv_conf: config.network_resolv_conf.clone(),
    };
    let machine = Machine::new(of, &options.state);
    (keeper, desk, Network { path, machine })
}
