//! The edge as boxes, strangers and the cloud meet it: real TLS, real sockets, raw frames.

mod client;
mod delivery;
mod fixture;
mod floods;
mod frames;
mod hostile;
mod identity;
mod pki;
mod rules;
mod sessions;
