//! The cloud: enrolment, MQTT consumer, SQL store, commands, rollouts, orders, objects, HTTP API.

pub mod fleet;

pub mod objects;
