//! The people's port, as its callers see it.

mod auth;
mod bulk;
mod conventions;
mod creating;
mod filters;
mod fleet;
mod garbage;
mod insights;
mod live;
mod metrics;
mod offline;
mod openapi;
mod order_networks;
mod proposals;
mod random;
mod schema;
pub mod site;
mod sso;
mod tenants;
mod walk;
