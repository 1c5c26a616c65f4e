//! The people's port, as its callers see it.

mod auth;
mod fleet;
mod garbage;
mod live;
mod openapi;
mod random;
mod schema;
mod site;
mod walk;
