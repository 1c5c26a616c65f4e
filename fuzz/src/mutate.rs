//! Small changes to bytes, always the same for the same seed: a fuzzer's work in little, for tests.

/// A generator of numbers (xorshift64*): what matters is that it repeats.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`, or 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        usize::try_from(number).unwrap_or(0) % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        // Ends of ranges are where mistakes are.
        const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'.', b'/', b'"'];
        match self.below(2) {
            0 => EDGES[self.below(EDGES.len())],
            _ => u8::try_from(self.below(256)).unwrap_or(0),
        }
    }
}

/// `bytes` with one to four changes: bits, bytes, numbers, cuts, repetitions, pieces of `other`.
pub fn mutate(bytes: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(out.len());
        match dice.below(8) {
            0 if !out.is_empty() => out[at] ^= 1 << dice.below(8),
            1 if !out.is_empty() => out[at] = dice.byte(),
            2 => out.insert(at, dice.byte()),
            3 => out.truncate(at),
            4 => {
                let end = at + dice.below(out.len() - at + 1);
                out.drain(at..end);
            }
            5 => {
                let end = at + dice.below((out.len() - at + 1).min(64));
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            6 => {
                let from = dice.below(other.len());
                let end = from + dice.below((other.len() - from + 1).min(256));
                out.splice(at..at, other[from..end].iter().copied());
            }
            _ => {
                // A length in the middle of a header.
                let edge = [0_u32, 1, u32::MAX, 1 << 31, 1 << 16][dice.below(5)];
                for (place, byte) in out.iter_mut().skip(at).zip(edge.to_le_bytes()) {
                    *place = byte;
                }
            }
        }
        out.truncate(1 << 16);
    }
    out
}
