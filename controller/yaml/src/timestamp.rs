//! Dates and times, read as PyYAML reads them and shown as Python shows them.

/// `None` if `text` has not the form of a date; an error if it has, and there is no such date.
pub(crate) fn parse(text: &str) -> Option<Result<String, String>> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range)?;
        (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse::<u32>().ok())?
    };
    let year = number(0..4)?;
    if bytes.get(4) != Some(&b'-') {
        return None;
    }
    let (month_text, rest) = text.get(5..)?.split_once('-')?;
    let month = digits(month_text, 2)?;
    let day_length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let day = digits(rest.get(..day_length)?, 2)?;
    let rest = rest.get(day_length..)?;
    let date = format!("{year:04}-{month:02}-{day:02}");
    let no_such = || format!("there is no date {text}");
    let real = year >= 1 && (1..=12).contains(&month) && day >= 1 && day <= days_in(year, month);
    if rest.is_empty() {
        // A date alone has two digits for month and day, or it is a string.
        return (month_text.len() == 2 && day_length == 2).then(|| if real { Ok(date) } else { Err(no_such()) });
    }
    let time = time_of_day(rest)?;
    Some(time.filter(|_| real).map(|time| format!("{date} {time}")).ok_or_else(no_such))
}

fn digits(text: &str, length_max: usize) -> Option<u32> {
    let fits = !text.is_empty() && text.len() <= length_max && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok())?
}

fn days_in(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// What follows the date: `None` if it has not the form of a time, `Some(None)` if there is no such
/// time.
fn time_of_day(rest: &str) -> Option<Option<String>> {
    let blanks = rest.trim_start_matches([' ', '\t']);
    let clock = if blanks.len() < rest.len() { blanks } else { rest.strip_prefix(['T', 't'])? };
    let (hour, clock) = clock.split_once(':')?;
    let (minute, clock) = clock.split_once(':')?;
    let (second, zone) = clock.split_at_checked(2)?;
    let hour = digits(hour, 2)?;
    let minute = digits(minute, 2).filter(|_| minute.len() == 2)?;
    let second = digits(second, 2)?;
    let (fraction, zone) = match zone.strip_prefix('.') {
        Some(fraction) => fraction.split_at(fraction.bytes().take_while(u8::is_ascii_digit).count()),
        None => ("", zone),
    };
    let microseconds = format!("{:0<6}", fraction.get(..6).unwrap_or(fraction));
    let zone = zone_offset(zone.trim_start_matches([' ', '\t']), zone.is_empty())?;
    let shown_fraction = if microseconds == "000000" { String::new() } else { format!(".{microseconds}") };
    let real = hour < 24 && minute < 60 && second < 60;
    Some(zone.filter(|_| real).map(|zone| format!("{hour:02}:{minute:02}:{second:02}{shown_fraction}{zone}")))
}

/// The offset as Python shows it; the outer and inner `None` as in [`time_of_day`].
fn zone_offset(text: &str, absent: bool) -> Option<Option<String>> {
    if text.is_empty() {
        return absent.then(|| Some(String::new()));
    }
    if text == "Z" {
        return Some(Some("+00:00".to_owned()));
    }
    let negative = text.starts_with('-');
    let offset = text.strip_prefix(['+', '-'])?;
    let (hours, minutes) = offset.split_once(':').map_or((offset, None), |(hours, minutes)| (hours, Some(minutes)));
    let hours = digits(hours, 2)?;
    let minutes = match minutes {
        Some(minutes) => digits(minutes, 2).filter(|_| minutes.len() == 2)?,
        None => 0,
    };
    let total = hours * 60 + minutes;
    if total >= 24 * 60 {
        return Some(None);
    }
    let sign = if negative && total > 0 { '-' } else { '+' };
    Some(Some(format!("{sign}{:02}:{:02}", total / 60, total % 60)))
}
