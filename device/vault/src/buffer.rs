//! Memory whose beginning suits direct IO.

use crate::{codec::narrow, config::BLOCK};

/// A fixed piece of memory that begins at a multiple of 4,096.
///
/// Over-allocates by one block and begins at the first fitting byte, which needs no `unsafe`.
pub(crate) struct AlignedBuffer {
    memory: Vec<u8>,
    begin: usize,
    len: usize,
}

impl AlignedBuffer {
    pub(crate) fn new(len: usize) -> Self {
        let block = narrow(BLOCK);
        let memory = vec![0; len + block];
        let begin = memory.as_ptr().align_offset(block);
        Self { memory, begin, len }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.begin..self.begin + self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.begin..self.begin + self.len]
    }
}
