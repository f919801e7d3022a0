//! Values as they are written: sizes, durations, addresses.

use std::time::Duration;

const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
const DURATIONS_MS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000)];

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.replace('_', "").parse().ok()?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.checked_mul(*factor)
}

/// Reads `64 MiB`, `64MiB`, or a number of bytes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let units: Vec<(&str, u64)> = SIZES.into_iter().chain([("", 1)]).collect();
    with_unit(text, &units).ok_or_else(|| {
        format!("`{text}` is no size: write 64 MiB (or B, KiB, GiB), or a number of bytes")
    })
}

/// Reads `10 s`, `500ms`, `2 min` or `1 h`. A bare number says too little.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let ms = with_unit(text, &DURATIONS_MS);
    ms.filter(|ms| *ms > 0).map(Duration::from_millis).ok_or_else(|| {
        format!("`{text}` is no duration above zero: write 500 ms, 10 s, 2 min or 1 h")
    })
}

/// Reads a whole number within bounds.
pub(super) fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    match text.trim().replace('_', "").parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("`{text}` is no whole number from {min} to {max}")),
    }
}

/// Reads host and port.
pub(super) fn address(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':');
    match parts.map(|(host, port)| (host, port.parse::<u16>())) {
        Some((host, Ok(_))) if !host.is_empty() => Ok(text.into()),
        _ => Err(format!("`{text}` is no host and port: write 127.0.0.1:2113")),
    }
}

fn shown(number: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| number >= *factor && number.is_multiple_of(*factor);
    match units.iter().rev().find(fits) {
        Some((unit, factor)) => format!("{} {unit}", number / factor),
        None => format!("{number} {}", units[0].0),
    }
}

/// Writes a size as [`bytes`] reads it.
pub(super) fn show_bytes(bytes: u64) -> String {
    shown(bytes, &SIZES)
}

/// Writes a duration as [`duration`] reads it.
pub(super) fn show_duration(duration: Duration) -> String {
    shown(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATIONS_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read() {
        for number in [0, 1, 1000, 1024, 4 << 20, (1 << 30) + 1, 7 << 30] {
            assert_eq!(bytes(&show_bytes(number)), Ok(number));
        }
        for ms in [1, 999, 1000, 60_000, 61_000, 7_200_000] {
            let time = Duration::from_millis(ms);
            assert_eq!(duration(&show_duration(time)), Ok(time));
        }
        assert_eq!((show_bytes(64 << 20), show_duration(Duration::from_secs(10))), ("64 MiB".into(), "10 s".into()));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for bad in ["", "x", "-1", "1 TB", "1.5 MiB", "99999999999 GiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        for bad in ["", "10", "0 s", "1 d", "s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "2113", ":2113", "host", "host:x", "host:70000"] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert!(address("[::1]:2113").is_ok() && address("localhost:0").is_ok());
    }
}
