//! The vault as its callers see it, on a real disk and on one that fails.

mod crowd;
mod deliveries;
mod fault_disk;
mod faults;
mod flipped;
mod former;
mod group;
mod index;
mod jobs;
mod killed;
mod model;
mod objects;
mod rekey;
mod space;
mod support;
mod uploads;
