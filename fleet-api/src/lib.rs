//! The cloud: enrolment, MQTT consumer, SQL store, commands, rollouts, orders, objects, HTTP API.

pub mod clock;
pub mod fleet;
pub mod listen;
pub mod objects;
pub mod store;
