//! The crash-safe encrypted store that the data plane writes to.
