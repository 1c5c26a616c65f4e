//! The cloud: enrolment, MQTT consumer, SQL store, commands, rollouts, orders, objects, HTTP API.

pub mod alerts;
pub mod audit;
pub mod auth;
pub mod boxes_port;
pub mod clock;
pub mod cloud;
pub mod config;
pub mod consumer;
pub mod fleet;
pub mod http;
pub mod identity;
pub mod listen;
pub mod metrics;
pub mod nats;
pub mod objects;
pub mod sso;
pub mod store;
pub mod traces;
pub mod unpack;
