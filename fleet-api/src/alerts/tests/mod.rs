//! Alerts from what a box does to who is told, on both databases.

pub mod peers;
mod story;
