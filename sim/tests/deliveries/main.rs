//! Deliveries of a real box to a real cloud under everything that may befall them: settings that must
//! hold through a power cut, a line that breaks, a bucket that is shut, bytes that rot.

mod headers;
mod held;
mod limits;
mod names;
mod receipts;
mod rot;
