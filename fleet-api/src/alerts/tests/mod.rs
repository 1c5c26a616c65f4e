//! Alerts from what a box does to who is told, on both databases.

mod peers;
mod story;
