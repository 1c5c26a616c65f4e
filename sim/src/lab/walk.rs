//! A random walk: one fault after the other, and after each the box must be well again.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Fault, Lab, Outcome};
use crate::system::SystemError;

/// Lets the box suffer `changes` faults, drawn with `seed`; each outcome as it comes.
///
/// # Errors
///
/// [`SystemError`] at the first fault that is not named, or not recovered from.
pub async fn walk(
    lab: &mut Lab,
    seed: u64,
    changes: usize,
    faults: &[Fault],
    mut each: impl FnMut(&Outcome),
) -> Result<(), SystemError> {
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..changes {
        let fault = faults[random.random_range(0..faults.len())];
        let outcome = lab.suffer(fault).await?;
        each(&outcome);
    }
    Ok(())
}
