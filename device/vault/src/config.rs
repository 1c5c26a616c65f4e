//! Where a vault lives and how large its pieces are.

use std::path::PathBuf;

use crate::{OpenError, crypto::TAG};

/// Alignment of everything in a segment: what `O_DIRECT` asks of every disk we know.
pub(crate) const BLOCK: u64 = 4096;

/// Where a vault lives and how large its pieces are.
#[derive(Clone, Debug)]
pub struct VaultConfig {
    /// The vault's own directory; made when absent.
    pub dir: PathBuf,
    /// Bytes of disk the vault may use. At 90 % new objects are told to slow down, at 95 % refused.
    pub capacity_bytes: u64,
    /// Size of one preallocated segment file, in bytes; a multiple of 4,096.
    pub segment_bytes: u64,
    /// Size of one full frame on disk, in bytes, tag included; a multiple of 4,096 that divides
    /// into a segment.
    pub frame_bytes: u32,
    /// Objects and parts up to this size, in bytes, live in the log.
    pub inline_max_bytes: u32,
    /// A log file is closed and the next one begun at this size, in bytes.
    pub log_bytes: u64,
    /// A checkpoint is written when this many bytes of log have been added since the last one.
    pub checkpoint_bytes: u64,
    /// What the index takes in memory, in bytes, before it is written to the disk; about this much.
    pub index_bytes: u64,
    /// Write segments past the page cache where the file system allows it.
    pub direct_io: bool,
}

impl VaultConfig {
    /// The usual sizes for a vault of `capacity_bytes` in `dir`.
    pub fn new(dir: impl Into<PathBuf>, capacity_bytes: u64) -> Self {
        Self {
            dir: dir.into(),
            capacity_bytes,
            segment_bytes: 64 << 20,
            frame_bytes: 1 << 20,
            inline_max_bytes: 32 << 10,
            log_bytes: 64 << 20,
            checkpoint_bytes: 256 << 20,
            index_bytes: 16 << 20,
            direct_io: true,
        }
    }

    /// The same vault with pieces small enough for a test to fill.
    #[must_use]
    pub fn small(mut self) -> Self {
        self.segment_bytes = 64 << 10;
        self.frame_bytes = 8 << 10;
        self.inline_max_bytes = 512;
        self.log_bytes = 64 << 10;
        self.checkpoint_bytes = 128 << 10;
        self.index_bytes = 16 << 10;
        self
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |rule: &str| {
            Err(OpenError::Config {
                rule: rule.to_owned(),
            })
        };
        let frame = u64::from(self.frame_bytes);
        if frame < BLOCK || !frame.is_multiple_of(BLOCK) || frame > 16 << 20 {
            return refuse("frame_bytes must be a multiple of 4096 from 4 KiB to 16 MiB");
        }
        if self.segment_bytes < frame
            || !self.segment_bytes.is_multiple_of(frame)
            || self.segment_bytes > 1 << 40
        {
            return refuse("segment_bytes must be a multiple of frame_bytes, at most 1 TiB");
        }
        if self.inline_max_bytes > 1 << 20 {
            return refuse("inline_max_bytes must be at most 1 MiB");
        }
        if self.log_bytes < 16 << 10 || self.log_bytes > 1 << 32 {
            return refuse("log_bytes must be from 16 KiB to 4 GiB");
        }
        if self.capacity_bytes < self.segment_bytes {
            return refuse("capacity_bytes must hold at least one segment");
        }
        Ok(())
    }
}

/// How objects are cut into frames; fixed for the life of a vault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    /// Bytes of a full frame on disk.
    pub(crate) frame: u64,
    /// Bytes of a segment.
    pub(crate) segment: u64,
}

impl Geometry {
    pub(crate) fn of(config: &VaultConfig) -> Self {
        Self {
            frame: u64::from(config.frame_bytes),
            segment: config.segment_bytes,
        }
    }

    /// Bytes of an object that a full frame holds.
    pub(crate) fn payload(self) -> u64 {
        self.frame - TAG as u64
    }

    /// Bytes on disk of the frames that hold `len` bytes of an object.
    pub(crate) fn disk_len(self, len: u64) -> u64 {
        let (full, rest) = (len / self.payload(), len % self.payload());
        let tail = if rest == 0 {
            0
        } else {
            (rest + TAG as u64).next_multiple_of(BLOCK)
        };
        full.saturating_mul(self.frame).saturating_add(tail)
    }
}
