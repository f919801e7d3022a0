//! How long an event waits before it is given again.

use std::time::Duration;

use crate::group::Settings;

/// The wait after so many failures (at least one): it doubles, and half of it is random.
pub(super) fn wait(settings: &Settings, failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(30);
    let whole = settings.backoff_min.saturating_mul(1 << doublings).min(settings.backoff_max);
    let half = whole / 2;
    let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
    whole - half + Duration::from_micros(random % spread)
}

/// Randomness of its own for each place of one moment (the finaliser of SplitMix64).
pub(super) fn mixed(random: u64, place: u64) -> u64 {
    let mut z = random ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_half_of_each_is_random() {
        let ms = Duration::from_millis;
        let settings =
            Settings { backoff_min: ms(100), backoff_max: ms(1000), ..Settings::default() };
        for (failures, whole) in [(1, 100), (2, 200), (4, 800), (5, 1000), (u32::MAX, 1000)] {
            for random in [0, 1, u64::MAX, 12_345] {
                let wait = wait(&settings, failures, random);
                assert!(wait >= ms(whole / 2) && wait <= ms(whole), "{failures}: {wait:?}");
            }
        }
        let none = Settings { backoff_min: ms(0), backoff_max: ms(0), ..settings };
        assert_eq!(wait(&none, 3, u64::MAX), ms(0));
    }
}
