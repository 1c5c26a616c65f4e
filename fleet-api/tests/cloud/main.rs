//! A real cloud in this process, and boxes with software keys against its real ports.

mod bench;
mod consumer;
mod delivery;
mod destinations;
mod faults;
mod objects;
mod packs;
mod people;
mod port;
mod rollouts;
