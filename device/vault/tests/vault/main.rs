//! The vault as its callers see it, on a real disk and on one that fails.

mod objects;
mod support;
