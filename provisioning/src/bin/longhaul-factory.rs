//! Factory and depot tool: makes a box's identity.
fn main() {}
