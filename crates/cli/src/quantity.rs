//! Durations, sizes, counts and instants as people write and read them.
//!
//! Pure: the clock and the time zone are handed in.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::{Exit, Failure};

/// Parses `500ms`, `30s`, `5m`, `2h`, `7d`, `1w`.
pub(crate) fn duration(text: &str) -> Result<Duration, Failure> {
    let bad = || {
        Failure::new(1015, Exit::Usage, format!("{text:?} is not a duration"))
            .why("a duration is a number and a unit: ms, s, m, h, d or w")
            .remedy("write for example 500ms, 30s, 5m, 2h or 7d")
    };
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(bad)?;
    let number: f64 = text[..split].parse().map_err(|_| bad())?;
    let unit = match &text[split..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        "w" => 604_800.0,
        _ => return Err(bad()),
    };
    let seconds = number * unit;
    if seconds <= 0.0 {
        return Err(bad());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}

/// A part of a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Percent(f64);

impl Percent {
    /// Whether it takes something that was drawn this number, of all that there are.
    pub(crate) fn takes(self, drawn: u64) -> bool {
        (drawn as f64) < u64::MAX as f64 * self.0 / 100.0
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} %", self.0)
    }
}

/// Parses `1%`, `0.5%`, `20`.
pub(crate) fn percent(text: &str) -> Result<Percent, Failure> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    match number.parse::<f64>() {
        Ok(part) if part > 0.0 && part <= 100.0 => Ok(Percent(part)),
        _ => Err(
            Failure::new(1015, Exit::Usage, format!("{text:?} is not a percentage"))
                .why("a percentage is a number above 0 and up to 100")
                .remedy("write for example 1% or 0.5%"),
        ),
    }
}

/// Bytes: `0 B`, `512 B`, `12.4 KiB`, `4.1 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count with separators: `1,204`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A count with its noun: `1 file`, `1,204 files`.
pub(crate) fn counted(n: u64, one: &str) -> String {
    let many = match one {
        "directory" => String::from("directories"),
        "entry" => String::from("entries"),
        "copy" => String::from("copies"),
        _ => format!("{one}s"),
    };
    format!("{} {}", count(n), if n == 1 { one } else { &many })
}

/// A stretch of time in the unit that fits: `840 us`, `41 ms`, `3.2 s`, `4 min`, `2 h`, `3 d`.
pub(crate) fn span(ns: u64) -> String {
    let s = ns as f64 / 1e9;
    match s {
        s if s < 0.001 => format!("{} us", ns / 1_000),
        s if s < 1.0 => format!("{} ms", ns / 1_000_000),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 5_400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

/// A path that was typed, with nothing in it that could act on a terminal.
pub(crate) fn shown_path(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = instep_core::path::escape(path.as_os_str().as_bytes(), &mut out);
    out
}

/// How long ago an instant was.
pub(crate) fn age(now_ns: i64, then_ns: i64) -> String {
    span(u64::try_from(now_ns.saturating_sub(then_ns)).unwrap_or(0))
}

/// The time of day: `14:02:11`.
pub(crate) fn time_of_day(ns: i64, zone: &TimeZone) -> String {
    stamp(ns)
        .to_zoned(zone.clone())
        .strftime("%H:%M:%S")
        .to_string()
}

/// Date and time of day: `2026-03-01 14:02:11`.
pub(crate) fn date_time(ns: i64, zone: &TimeZone) -> String {
    stamp(ns)
        .to_zoned(zone.clone())
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string()
}

/// An instant for programs: `2026-03-01T14:02:11.482Z`.
pub(crate) fn rfc3339(ns: i64) -> String {
    stamp(ns)
        .to_zoned(TimeZone::UTC)
        .strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
        .to_string()
}

fn stamp(ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(ns)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_number_and_a_known_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(7 * 24)));
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "0s",
            "1y",
            "1e9d",
            "9999999999999999999d",
        ] {
            assert_eq!(duration(bad).map_err(|f| f.code), Err(1015), "{bad}");
        }
    }

    #[test]
    fn quantities_are_short_and_round_up_to_the_next_unit() {
        assert_eq!(
            [bytes(0), bytes(1023), bytes(12_697)],
            ["0 B", "1023 B", "12.4 KiB"]
        );
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(
            [count(0), count(999), count(1_204), count(1_000_000)],
            ["0", "999", "1,204", "1,000,000"]
        );
        assert_eq!(
            counted(1, "file") + &counted(2, "directory"),
            "1 file2 directories"
        );
        assert_eq!(
            [
                span(41_000_000),
                span(3_240_000_000),
                span(7_200_000_000_000)
            ],
            ["41 ms", "3.2 s", "2 h"]
        );
    }

    #[test]
    fn instants_are_shown_in_the_zone_asked_for() {
        let ns = 1_772_373_731_482_000_000;
        assert_eq!(time_of_day(ns, &TimeZone::UTC), "14:02:11");
        assert_eq!(rfc3339(ns), "2026-03-01T14:02:11.482Z");
    }
}
