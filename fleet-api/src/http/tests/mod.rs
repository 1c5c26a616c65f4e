//! The people's port, as its callers see it.

mod openapi;
