//! Times as SkyServe shows them: `1h 2m 23s` for how long, `2 mins ago` for when.

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
/// A month of the mean length; SkyServe counts calendar months, a day more or less.
const MONTH: u64 = 30 * DAY + 10 * HOUR;
const YEAR: u64 = 365 * DAY;

/// How long, to the second: `1d 2h 3m 4s`; `-` when it is unknown.
pub(crate) fn exact(seconds: Option<u64>) -> String {
    let Some(seconds) = seconds else { return "-".to_owned() };
    if seconds == 0 {
        return "< 1 second".to_owned();
    }
    let units = [(WEEK, "w"), (DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (1, "s")];
    let mut left = seconds;
    let parts: Vec<String> = units
        .into_iter()
        .filter_map(|(length, unit)| {
            let count = left / length;
            left %= length;
            (count > 0).then(|| format!("{count}{unit}"))
        })
        .collect();
    parts.join(" ")
}

/// How long ago, roughly: `2 mins ago`.
pub(crate) fn ago(seconds: u64) -> String {
    let count = |number: u64, unit: &str| {
        let plural = if number == 1 { "" } else { "s" };
        format!("{number} {unit}{plural} ago")
    };
    match seconds {
        0 => "< 1 second".to_owned(),
        1..=10 => "a few secs ago".to_owned(),
        _ if seconds < MINUTE => count(seconds, "sec"),
        _ if seconds < HOUR => count(seconds / MINUTE, "min"),
        _ if seconds < DAY => count(seconds / HOUR, "hr"),
        _ if seconds < WEEK => count(seconds / DAY, "day"),
        _ if seconds < MONTH => count(seconds / WEEK, "week"),
        _ if seconds < YEAR => count(seconds / MONTH, "month"),
        _ => count(seconds / YEAR, "year"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_shown_to_the_second_without_empty_units() {
        assert_eq!(exact(None), "-");
        assert_eq!(exact(Some(0)), "< 1 second");
        assert_eq!(exact(Some(59)), "59s");
        assert_eq!(exact(Some(3743)), "1h 2m 23s");
        assert_eq!(exact(Some(86_400 + 1)), "1d 1s");
    }

    #[test]
    fn a_moment_is_shown_in_its_largest_unit() {
        for (seconds, shown) in [
            (0, "< 1 second"),
            (10, "a few secs ago"),
            (11, "11 secs ago"),
            (60, "1 min ago"),
            (7199, "1 hr ago"),
            (2 * 86_400, "2 days ago"),
            (15 * 86_400, "2 weeks ago"),
            (800 * 86_400, "2 years ago"),
        ] {
            assert_eq!(ago(seconds), shown);
        }
    }
}
