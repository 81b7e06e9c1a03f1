//! The value of heartbeats and canaries.

use std::time::{SystemTime, UNIX_EPOCH};

/// The last second of the year 9999, after which RFC 3339 has no notation.
const LAST_SECOND: u64 = 253_402_300_799;
const SECONDS_PER_DAY: u64 = 86_400;

/// `time` in UTC as RFC 3339 section 5.6 writes it, to the second: `2026-10-01T08:00:00Z`.
///
/// The value of the heartbeat and of canaries. Readers look at neither: a canary has to exist, a heartbeat
/// has to change (Cilium `pkg/kvstore`). Times before 1970 and after 9999 give the nearest time that can be
/// written.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).min(LAST_SECOND);
    let (year, month, day) = date(seconds / SECONDS_PER_DAY);
    let second_of_day = seconds % SECONDS_PER_DAY;
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the Gregorian calendar, of a number of days since 1970-01-01.
///
/// Years are counted from March, so that the leap day is the last of a year and the lengths of months repeat
/// every five months (153 days). After Howard Hinnant, "chrono-compatible low-level date algorithms",
/// `civil_from_days`.
fn date(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_FROM_0000_MARCH_TO_1970: u64 = 719_468;
    const DAYS_PER_400_YEARS: u64 = 146_097;

    let days = days_since_1970 + DAYS_FROM_0000_MARCH_TO_1970;
    let era = days / DAYS_PER_400_YEARS;
    let day_of_era = days % DAYS_PER_400_YEARS;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;

    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> String {
        rfc3339(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(1_790_856_000), "2026-10-01T12:00:00Z");
        // The example of RFC 3339 section 5.8, without its fraction.
        assert_eq!(at(482_196_050), "1985-04-12T23:20:50Z");
    }

    #[test]
    fn leap_days_follow_the_gregorian_calendar() {
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(at(4_107_456_000), "2100-02-28T00:00:00Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn times_that_cannot_be_written_are_clamped() {
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
        assert_eq!(at(LAST_SECOND + 1), "9999-12-31T23:59:59Z");
    }
}
