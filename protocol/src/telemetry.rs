//! Live health of a box; losing one message is acceptable.

use serde::{Deserialize, Serialize};

use crate::diag::RungReport;
use crate::envelope::Message;
use crate::value::UnixMillis;

/// One sample. Absent values could not be measured on this machine.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Telemetry {
    /// Seconds since the operating system booted.
    pub uptime_secs: u64,
    /// Load average over one minute.
    pub load_1m: f64,
    /// Memory in all, in bytes.
    pub memory_total_bytes: u64,
    /// Memory that can be had without swapping, in bytes.
    pub memory_available_bytes: u64,
    /// The file systems that matter to the box.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// Temperatures, where there are sensors.
    #[serde(default)]
    pub temperatures: Vec<Temperature>,
    /// Interfaces and their counters.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// The data plane's store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultFill>,
    /// When the box's certificate expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires: Option<UnixMillis>,
    /// The ladder.
    #[serde(default)]
    pub rungs: Vec<RungReport>,
}

impl Message for Telemetry {
    const NAME: &'static str = "telemetry";
}

/// One file system.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// Its size in bytes.
    pub total_bytes: u64,
    /// What is free, in bytes.
    pub free_bytes: u64,
}

/// One sensor.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Temperature {
    /// The sensor's name.
    pub sensor: String,
    /// Degrees Celsius.
    pub celsius: f64,
}

/// One interface.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Network {
    /// The kernel's name of it.
    pub interface: String,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Bytes received since boot.
    pub received_bytes: u64,
    /// Bytes sent since boot.
    pub sent_bytes: u64,
}

/// How full the store is and what waits for delivery.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct VaultFill {
    /// What it may hold, in bytes.
    pub capacity_bytes: u64,
    /// What it holds, in bytes.
    pub used_bytes: u64,
    /// Objects in it.
    pub objects: u64,
    /// Objects that are not yet verified in the cloud.
    pub pending_objects: u64,
    /// Their bytes.
    pub pending_bytes: u64,
}
