//! Objects: an S3 server on this machine's disk, and the cloud's view of whichever S3 it uses.
//!
//! [`disk`] keeps objects; [`s3`] speaks the protocol over it; [`bucket`] is the client that the
//! cloud uses, also where the store is somebody else's.

pub mod bucket;
pub mod disk;
pub mod names;
pub mod s3;
