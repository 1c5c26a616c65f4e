//! Simulated fleets, faults, whole-system tests and the demo.
