//! `strftime_now`: the local time as `datetime.now().strftime` writes it on Linux, in the C locale.

use super::error::{Result, unsupported};
use jiff::civil::DateTime;
use jiff::{Timestamp, ZonedDateTime};

pub fn strftime_now(format: &str) -> Result<String> {
    let now = ZonedDateTime::now();
    strftime(format, now.datetime(), now.timestamp())
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Widest field of a directive.
const MAX_WIDTH: usize = 1000;

/// How a directive is filled up and spelled.
#[derive(Clone, Copy, Default)]
struct Flags {
    fill: Option<char>,
    upper: bool,
    swapped: bool,
    width: Option<usize>,
}

pub fn strftime(format: &str, time: DateTime, now: Timestamp) -> Result<String> {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let start = chars.clone();
        let mut flags = Flags::default();
        let mut directive = chars.next();
        while let Some(flag) = directive.filter(|c| "_-0^#".contains(*c)) {
            match flag {
                '^' => flags.upper = true,
                '#' => flags.swapped = true,
                fill => flags.fill = Some(fill),
            }
            directive = chars.next();
        }
        while let Some(digit) = directive.and_then(|c| c.to_digit(10)) {
            let width = flags.width.unwrap_or(0) * 10 + digit as usize;
            if width > MAX_WIDTH {
                return unsupported(format!("a field of {width} characters in {format:?}"));
            }
            flags.width = Some(width);
            directive = chars.next();
        }
        if matches!(directive, Some('E' | 'O')) {
            directive = chars.next();
        }
        match directive.and_then(|directive| expand(directive, flags, time, now)) {
            Some(text) => out.push_str(&text),
            // The C library writes what it does not know as it stands.
            None => {
                out.push('%');
                let rest = start.as_str();
                out.push_str(&rest[..rest.len() - chars.as_str().len()]);
            }
        }
    }
    Ok(out)
}

fn expand(directive: char, flags: Flags, time: DateTime, now: Timestamp) -> Option<String> {
    let date = time.date();
    let (year, month, day) = (i64::from(time.year()), i64::from(time.month()), i64::from(time.day()));
    let (hour, minute, second) = (i64::from(time.hour()), i64::from(time.minute()), i64::from(time.second()));
    let hour12 = (hour + 11) % 12 + 1;
    let weekday = i64::from(date.weekday().to_sunday_zero_offset());
    let from_monday = (weekday + 6) % 7;
    let day_of_year = i64::from(date.day_of_year());
    let (day_name, month_name) = (DAYS[weekday as usize], MONTHS[month as usize - 1]);
    let number = |value: i64, width: usize, fill: char| Some(numeric(value, width, fill, flags));
    let text = |text: &str| Some(worded(text, flags));
    let iso = date.iso_week_date();
    let all = |format: &str| strftime(format, time, now).ok().map(|text| worded(&text, flags));
    match directive {
        'Y' => number(year, 1, '0'),
        'C' => number(year / 100, 2, '0'),
        'y' => number(year % 100, 2, '0'),
        'm' => number(month, 2, '0'),
        'd' => number(day, 2, '0'),
        'e' => number(day, 2, ' '),
        'H' => number(hour, 2, '0'),
        'I' => number(hour12, 2, '0'),
        'k' => number(hour, 2, ' '),
        'l' => number(hour12, 2, ' '),
        'M' => number(minute, 2, '0'),
        'S' => number(second, 2, '0'),
        'j' => number(day_of_year, 3, '0'),
        'u' => number(if weekday == 0 { 7 } else { weekday }, 1, '0'),
        'w' => number(weekday, 1, '0'),
        'U' => number((day_of_year + 6 - weekday) / 7, 2, '0'),
        'W' => number((day_of_year + 6 - from_monday) / 7, 2, '0'),
        'V' => number(i64::from(iso.week()), 2, '0'),
        'G' => number(i64::from(iso.year()), 1, '0'),
        'g' => number(i64::from(iso.year()) % 100, 2, '0'),
        's' => number(now.as_second(), 1, '0'),
        // Python fills these in itself, whatever the flags: it passes on only what follows the percent sign at once.
        'f' => Some(format!("{:06}", time.subsec_nanosecond() / 1000)),
        'B' => text(month_name),
        'b' | 'h' => text(&month_name[..3]),
        'A' => text(day_name),
        'a' => text(&day_name[..3]),
        'p' => {
            let half = if hour < 12 { "AM" } else { "PM" };
            // Swapping the case of AM makes it lower.
            if flags.swapped { Some(padded(&half.to_ascii_lowercase(), flags)) } else { text(half) }
        }
        'P' => Some(padded(if hour < 12 { "am" } else { "pm" }, flags)),
        // Python's time of day knows no zone.
        'Z' | 'z' => Some(String::new()),
        'n' => text("\n"),
        't' => text("\t"),
        '%' => text("%"),
        'D' | 'x' => all("%m/%d/%y"),
        'F' => all("%Y-%m-%d"),
        'T' | 'X' => all("%H:%M:%S"),
        'R' => all("%H:%M"),
        'r' => all("%I:%M:%S %p"),
        'c' => all("%a %b %e %H:%M:%S %Y"),
        _ => None,
    }
}

fn numeric(value: i64, width: usize, fill: char, flags: Flags) -> String {
    let fill = match flags.fill {
        Some('_') => ' ',
        Some('0') => '0',
        _ => fill,
    };
    let width = match (flags.fill, flags.width) {
        (_, Some(wanted)) => wanted.max(if flags.fill == Some('-') { 0 } else { width }),
        (Some('-'), None) => 0,
        (_, None) => width,
    };
    let digits = value.to_string();
    let missing = width.saturating_sub(digits.len());
    std::iter::repeat_n(fill, missing).collect::<String>() + &digits
}

fn worded(text: &str, flags: Flags) -> String {
    let text = if flags.upper || flags.swapped { text.to_ascii_uppercase() } else { text.to_owned() };
    padded(&text, flags)
}

fn padded(text: &str, flags: Flags) -> String {
    let fill = if flags.fill == Some('0') { '0' } else { ' ' };
    let missing = flags.width.unwrap_or(0).saturating_sub(text.len());
    std::iter::repeat_n(fill, missing).collect::<String>() + text
}
