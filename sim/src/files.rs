//! A customer's folder, made on the spot: reproducible bytes that do not compress.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

/// What a folder shall hold.
#[derive(Clone, Copy, Debug)]
pub struct FolderPlan {
    /// Number of small files.
    pub small: usize,
    /// Length of each small file in bytes: at least and at most.
    pub small_bytes: (usize, usize),
    /// Length of the one large file in bytes; 0 for none.
    pub large_bytes: u64,
    /// Seed of the contents.
    pub seed: u64,
}

/// BLAKE3 of every file, by its path below the folder with `/` between its parts.
pub type Digests = BTreeMap<String, blake3::Hash>;

/// Makes the folder and says what is in it.
///
/// # Errors
///
/// What the file system says.
pub fn make(folder: &Path, plan: FolderPlan) -> io::Result<Digests> {
    let mut random = SmallRng::seed_from_u64(plan.seed);
    let mut digests = Digests::new();
    let mut buffer = vec![0; 1 << 20];
    for i in 0..plan.small {
        let name = format!("line-{:03}/shot-{i:06}.seg", i / 200);
        let length = random.random_range(plan.small_bytes.0..=plan.small_bytes.1);
        let bytes = &mut buffer[..length];
        random.fill_bytes(bytes);
        let path = folder.join(&name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, &*bytes)?;
        digests.insert(name, blake3::hash(bytes));
    }
    if plan.large_bytes > 0 {
        let name = "volume.raw";
        std::fs::create_dir_all(folder)?;
        let mut file = BufWriter::new(std::fs::File::create(folder.join(name))?);
        let mut hasher = blake3::Hasher::new();
        let mut left = plan.large_bytes;
        while left > 0 {
            let length = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            random.fill_bytes(&mut buffer[..length]);
            hasher.update(&buffer[..length]);
            file.write_all(&buffer[..length])?;
            left -= length as u64;
        }
        file.flush()?;
        digests.insert(name.to_owned(), hasher.finalize());
    }
    Ok(digests)
}

/// BLAKE3 of everything that `reader` yields.
///
/// # Errors
///
/// What the reader says.
pub fn digest(mut reader: impl Read) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut reader, &mut hasher)?;
    Ok(hasher.finalize())
}
