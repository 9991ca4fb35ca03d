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

impl Flags {
    fn is_plain(&self) -> bool {
        self.fill.is_none() && !self.upper && !self.swapped && self.width.is_none()
    }
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
            None if flags.width.is_some() && directive != Some('f') => {
                return unsupported(format!("the width of an unknown directive in {format:?}"));
            }
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
        // Python fills in microseconds itself, where they follow the percent sign at once.
        'f' if flags.is_plain() => Some(format!("{:06}", time.subsec_nanosecond() / 1000)),
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
        'z' => Some(String::new()),
        'Z' => Some(padded("", flags)),
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
        Some('_' | '-') => ' ',
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python writes for these on Linux.
    #[test]
    fn dates_are_written_as_python_does() {
        let format = "%a|%A|%b|%B|%c|%C|%d|%D|%e|%F|%g|%G|%h|%H|%I|%j|%k|%l|%m|%M|%p|%P|%r|%R|%S|%T|%u|%U|%V|%w|%W|%x|%X|%y|\
                      %Y|%Z|%z|%%|%f|%-d|%-m|%-I|%-H|%-j|%_d|%_m|%0e|%^a|%^B|%#p|%#a|%5d|%-5d|%_5d|%05e|%10A|%010A|%-10A|%Ey|\
                      %Od|%Q|%E|%:z|%+|%^p|%#Z|%2Y|%6Y|%_6Y|%-y|%^c|%5%|%-%|%10c|%10D|%3f|%-f|%-z|%-Z|%5Z|%-k|%0k|%-l|%0l|%-e|\
                      %-S|%_H|%n%t";
        let cases = [
            (
                DateTime::new(2000, 2, 29, 23, 59, 59, 123_456_000),
                "Tue|Tuesday|Feb|February|Tue Feb 29 23:59:59 2000|20|29|02/29/00|29|2000-02-29|00|2000|Feb|23|11|060|23|11|02|\
                 59|PM|pm|11:59:59 PM|23:59|59|23:59:59|2|09|09|2|09|02/29/00|23:59:59|00|2000|||%|123456|29|2|11|23|60|29| 2|\
                 29|TUE|FEBRUARY|pm|TUE|00029|   29|   29|00029|   Tuesday|000Tuesday|   Tuesday|00|29|%Q|%E|%:z|%+|PM||2000|\
                 002000|  2000|0|TUE FEB 29 23:59:59 2000|    %|%|Tue Feb 29 23:59:59 2000|  02/29/00|%3f|%-f|||     |23|23|11|\
                 11|29|59|23|\n\t",
            ),
            (
                DateTime::new(2026, 1, 4, 0, 5, 9, 7_000),
                "Sun|Sunday|Jan|January|Sun Jan  4 00:05:09 2026|20|04|01/04/26| 4|2026-01-04|26|2026|Jan|00|12|004| 0|12|01|05|\
                 AM|am|12:05:09 AM|00:05|09|00:05:09|7|01|01|0|00|01/04/26|00:05:09|26|2026|||%|000007|4|1|12|0|4| 4| 1|04|SUN|\
                 JANUARY|am|SUN|00004|    4|    4|00004|    Sunday|0000Sunday|    Sunday|26|04|%Q|%E|%:z|%+|AM||2026|002026|\
                 \x20 2026|26|SUN JAN  4 00:05:09 2026|    %|%|Sun Jan  4 00:05:09 2026|  01/04/26|%3f|%-f|||     |0|00|12|12|4|\
                 9| 0|\n\t",
            ),
            (
                DateTime::new(2024, 12, 30, 12, 0, 0, 0),
                "Mon|Monday|Dec|December|Mon Dec 30 12:00:00 2024|20|30|12/30/24|30|2024-12-30|25|2025|Dec|12|12|365|12|12|12|00|\
                 PM|pm|12:00:00 PM|12:00|00|12:00:00|1|52|01|1|53|12/30/24|12:00:00|24|2024|||%|000000|30|12|12|12|365|30|12|30|\
                 MON|DECEMBER|pm|MON|00030|   30|   30|00030|    Monday|0000Monday|    Monday|24|30|%Q|%E|%:z|%+|PM||2024|002024|\
                 \x20 2024|24|MON DEC 30 12:00:00 2024|    %|%|Mon Dec 30 12:00:00 2024|  12/30/24|%3f|%-f|||     |12|12|12|12|\
                 30|0|12|\n\t",
            ),
        ];
        for (time, expected) in cases {
            let written = strftime(format, time.unwrap(), Timestamp::UNIX_EPOCH).unwrap();
            for ((directive, written), expected) in
                format.split('|').zip(written.split('|')).zip(expected.split('|'))
            {
                assert_eq!(written, expected, "{directive}");
            }
            assert_eq!(written, expected);
        }
        let epoch = DateTime::new(1970, 1, 1, 0, 0, 0, 0).unwrap();
        assert_eq!(strftime("é%é%s%", epoch, Timestamp::UNIX_EPOCH).unwrap(), "é%é0%");
    }
}
