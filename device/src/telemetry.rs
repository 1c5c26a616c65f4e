//! Samples of the machine's health.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use longhaul_protocol::telemetry::{Disk, Network, Telemetry, Temperature};
use sysinfo::{Components, Networks, System};

/// Entries of one kind in a sample at the most: a sample must fit its message.
const MAX_ENTRIES: usize = 32;

/// Measures; reading sensors blocks for some milliseconds.
pub struct Sampler {
    state_dir: PathBuf,
    /// Absent where this machine does not show it.
    system: Option<System>,
    networks: Option<Networks>,
    components: Option<Components>,
}

impl Sampler {
    /// Measures the machine and the file system of `state_dir`.
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            system: System::new().ok(),
            networks: Networks::new().ok(),
            components: Components::new().ok(),
        }
    }

    /// One sample; what only the agent knows is left empty.
    pub fn sample(&mut self) -> Telemetry {
        if let Some(system) = &mut self.system {
            system.refresh_memory();
        }
        if let Some(networks) = &mut self.networks {
            networks.refresh(true);
        }
        if let Some(components) = &mut self.components {
            components.refresh(true);
        }
        let memory = |of: fn(&System) -> u64| self.system.as_ref().map_or(0, of);
        Telemetry {
            uptime_secs: System::uptime().unwrap_or(0),
            load_1m: System::load_average().map_or(0.0, |load| finite(load.one)),
            memory_total_bytes: memory(System::total_memory),
            memory_available_bytes: memory(System::available_memory),
            disks: disk(&self.state_dir).into_iter().collect(),
            temperatures: self.temperatures(),
            networks: self.networks(),
            vault: None,
            certificate_expires: None,
            rungs: Vec::new(),
        }
    }

    fn temperatures(&self) -> Vec<Temperature> {
        let readings = self.components.iter().flat_map(|all| all.iter());
        let readings = readings.filter_map(|component| {
            let celsius = f64::from(component.temperature()?);
            celsius.is_finite().then(|| Temperature {
                sensor: component.label().chars().take(64).collect(),
                celsius,
            })
        });
        readings.take(MAX_ENTRIES).collect()
    }

    fn networks(&self) -> Vec<Network> {
        let mut networks: Vec<_> = self
            .networks
            .iter()
            .flat_map(|all| all.iter())
            .map(|(name, data)| Network {
                interface: name.to_string_lossy().into_owned(),
                addresses: data
                    .ip_networks()
                    .iter()
                    .take(MAX_ENTRIES)
                    .map(ToString::to_string)
                    .collect(),
                received_bytes: data.total_received(),
                sent_bytes: data.total_transmitted(),
            })
            .collect();
        networks.sort_by(|a, b| a.interface.cmp(&b.interface));
        networks.truncate(MAX_ENTRIES);
        networks
    }
}

fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

/// The file system that holds `path`.
fn disk(path: &Path) -> Option<Disk> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let device = path.metadata().ok()?.dev();
    let path = path.canonicalize().ok()?;
    let mount = path
        .ancestors()
        .take_while(|p| p.metadata().is_ok_and(|m| m.dev() == device))
        .last()?;
    Some(Disk {
        mount: mount.to_string_lossy().into_owned(),
        total_bytes: stat.blocks().saturating_mul(stat.fragment_size()),
        free_bytes: stat.blocks_available().saturating_mul(stat.fragment_size()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_of_this_machine_makes_sense() {
        let dir = tempfile::tempdir().unwrap();

        let sample = Sampler::new(dir.path().to_owned()).sample();

        assert!(sample.uptime_secs > 0);
        assert!(sample.memory_total_bytes > sample.memory_available_bytes);
        assert!(sample.networks.iter().any(|n| n.interface == "lo"));
        let [disk] = sample.disks.as_slice() else {
            panic!("one disk expected: {:?}", sample.disks);
        };
        assert!(dir.path().starts_with(&disk.mount), "{}", disk.mount);
        assert!(disk.total_bytes >= disk.free_bytes && disk.total_bytes > 0);
    }
}
