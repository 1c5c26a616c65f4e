//! MQTT 5 as a server hears it: strict, borrowing, bounded and without IO.
//!
//! `bytes -> frame -> packet`: [`frame`] cuts packets out of a stream and refuses every type that
//! a client may not send before its body is looked at; [`connect`] and [`packet`] parse bodies
//! into types that borrow from the stream; [`encode`] writes what the server says.

pub mod connect;
pub mod encode;
pub mod frame;
pub mod packet;
mod property;
mod reader;
