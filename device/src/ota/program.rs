//! What the kernel takes for a program.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// Whether the kernel would start this: a script, or what this program is. What it refuses would
/// be read by a shell instead (POSIX `execvp`), as if bytes that mean something else were commands.
pub fn is_program(path: &Path) -> bool {
    let (Some(this), Some(other)) = (Head::of(Path::new("/proc/self/exe")), Head::of(path)) else {
        return false;
    };
    // ELF: the magic number, class and byte order, and the processor.
    let same = other.bytes[..6] == this.bytes[..6] && other.bytes[18..20] == this.bytes[18..20];
    other.bytes.starts_with(b"#!") || (same && other.is_whole())
}

/// The beginning of a file: as much as an ELF header of 64 bits.
struct Head {
    bytes: [u8; 64],
    file_len: u64,
}

impl Head {
    fn of(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let file_len = file.metadata().ok()?.len();
        let mut bytes = Vec::with_capacity(64);
        file.take(64).read_to_end(&mut bytes).ok()?;
        bytes.resize(64, 0);
        let bytes = bytes.try_into().ok()?;
        Some(Self { bytes, file_len })
    }

    /// Whether its two tables lie inside the file, where that can be told: little-endian ELF of 64
    /// bits. What the kernel does not take would be given to the shell, as a script.
    fn is_whole(&self) -> bool {
        if self.bytes[4..6] != [2, 1] {
            return true;
        }
        let number = |at: usize, len: usize| {
            let bytes = self.bytes[at..at + len].iter().rev();
            bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let ends = |table: usize, size: usize, count: usize| {
            number(table, 8).checked_add(number(size, 2) * number(count, 2))
        };
        let (programs, sections) = (ends(32, 54, 56), ends(40, 58, 60));
        let inside = |end: Option<u64>| end.is_some_and(|end| end <= self.file_len);
        number(56, 2) > 0 && inside(programs) && inside(sections)
    }
}
