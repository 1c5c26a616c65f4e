//! The write-ahead log: files of sealed records, the only truth.

pub(crate) mod checkpoint;
pub(crate) mod files;
pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod writer;
