//! Text for people: safe, measured, wrapped, with units.

use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The width that output keeps to.
pub(crate) const WIDTH: usize = 80;

/// Whether a character could do more to a terminal or a reader than stand there: control characters
/// and the invisible ones that reorder text or hide in it.
pub(crate) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Text from elsewhere, made safe for a terminal: `\u{1b}` for an escape.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// As [`escape`], for a text of several lines: its line breaks stay, those at the end go.
pub(crate) fn escape_lines(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

/// JSON that is safe for a terminal, too. In JSON such characters stand only inside of strings.
pub(crate) fn escape_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        // Line breaks are those of the layout: serde escapes the ones in strings.
        if c != '\n' && is_unsafe(c) {
            let units = &mut [0; 2];
            for unit in c.encode_utf16(units) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// A text cut to `limit` columns, with an ellipsis where something is missing.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    if width(text) <= limit {
        return text.to_owned();
    }
    let mut short = String::new();
    for c in text.chars() {
        if width(&short) + c.width().unwrap_or(0) + 1 > limit {
            break;
        }
        short.push(c);
    }
    short + "…"
}

/// A text filled up with spaces to `columns`.
pub(crate) fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// A text that [`wrap`] does not break, such as a number with its unit.
pub(crate) fn keep(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

/// Lines of `WIDTH` columns: the first after `first`, the others after as many spaces.
///
/// Breaks at spaces, and within words that are too long for a line of their own. What [`keep`] has
/// kept together has plain spaces again in the end, so that output can be searched.
pub(crate) fn wrap(first: &str, text: &str) -> String {
    let indent = width(first);
    let room = WIDTH.saturating_sub(indent).max(10);
    let mut lines = Vec::new();
    let mut line = String::new();
    for mut word in text.split(' ') {
        if !line.is_empty() && width(&line) + 1 + width(word) > room {
            lines.push(std::mem::take(&mut line));
        }
        while width(word) > room {
            let (part, rest) = word.split_at(head(word, room));
            lines.push(part.to_owned());
            word = rest;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    let body = lines.join(&format!("\n{}", " ".repeat(indent))).replace('\u{a0}', " ");
    format!("{first}{body}\n")
}

/// The length in bytes of as much of a word as fits into `room` columns, at least one character.
fn head(word: &str, room: usize) -> usize {
    let mut columns = 0;
    for (at, c) in word.char_indices() {
        columns += c.width().unwrap_or(0);
        if at > 0 && columns > room {
            return at;
        }
    }
    word.len()
}

/// A time in its largest unit: "12 s", "3 min".
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// A longer time in its two largest units: "3 min", "2 h 5 min".
pub(crate) fn long_age(seconds: u64) -> String {
    let rest = match seconds {
        0..3600 => 0,
        3600..86400 => seconds % 3600 / 60 * 60,
        _ => seconds % 86400 / 3600 * 3600,
    };
    if rest == 0 { age(seconds) } else { format!("{} {}", age(seconds), age(rest)) }
}

/// A round-trip time: "0.4 ms", "120 ms", "1.5 s".
pub(crate) fn round_trip(micros: u64) -> String {
    let time = Duration::from_micros(micros);
    match time.as_millis() {
        0..100 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        100..1000 => format!("{} ms", time.as_millis()),
        1000..100_000 => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{} s", time.as_secs()),
    }
}

/// A number of bytes in three or four digits: "512 B", "1.2 MiB", "1023 KiB".
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut rest = count;
    let mut tenths = 0;
    let mut unit = "";
    for name in UNITS {
        if rest < 1024 {
            break;
        }
        // Cut, not rounded: 1023.99 must not become 1024.
        tenths = rest % 1024 * 10 / 1024;
        rest /= 1024;
        unit = name;
    }
    if rest < 100 { format!("{rest}.{tenths} {unit}") } else { format!("{rest} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_made_visible_and_letters_stay() {
        assert_eq!(escape("bob \x1b[2J\r\n\x07"), "bob \\u{1b}[2J\\r\\n\\u{7}");
        assert_eq!(escape("a\u{202e}b\u{9b}c"), "a\\u{202e}b\\u{9b}c");
        assert_eq!(escape("Zoë 東京 …"), "Zoë 東京 …");
    }

    #[test]
    fn json_stays_json() {
        let hostile = "\u{9b}31m \u{202e} \u{7f} \u{e0041} \x1b é";
        let json = serde_json::to_string_pretty(&[hostile]).unwrap();
        let safe = escape_json(&json);
        assert!(!safe.contains(|c| c != '\n' && is_unsafe(c)));
        assert_eq!(serde_json::from_str::<Vec<String>>(&safe).unwrap(), [hostile]);
    }

    #[test]
    fn cutting_and_padding_count_columns() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("東京都庁", 6), "東京…");
        assert_eq!(pad("東", 4), "東  ");
    }

    #[test]
    fn wrapped_lines_fit_and_lose_nothing() {
        let words = format!("one two {} three", "x".repeat(200));
        for text in [words.as_str(), "", "short", &"word ".repeat(60), &"東".repeat(99)] {
            let wrapped = wrap("  allowed  ", text);
            assert!(wrapped.lines().all(|line| width(line) <= WIDTH), "{wrapped}");
            let squeeze = |s: &str| s.split_whitespace().collect::<String>();
            assert_eq!(squeeze(&wrapped), format!("allowed{}", squeeze(text)));
        }
        assert_eq!(wrap("a ", &format!("{} b", "x".repeat(78))).lines().last(), Some("  b"));
    }

    #[test]
    fn units() {
        let ages = [0, 59, 60, 3599, 3600, 86399, 86400].map(age);
        assert_eq!(ages, ["0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d"]);
        let long = [59, 3600, 7500, 90000, 86400].map(long_age);
        assert_eq!(long, ["59 s", "1 h", "2 h 5 min", "1 d 1 h", "1 d"]);
        let trips = [0, 420, 99_900, 123_456, 1_500_000, 100_000_000].map(round_trip);
        assert_eq!(trips, ["0.0 ms", "0.4 ms", "99.9 ms", "123 ms", "1.5 s", "100 s"]);
        let sizes = [0, 1023, 1024, 1_258_291, 104_857_599, (1 << 20) - 1, u64::MAX].map(bytes);
        let shown = ["0 B", "1023 B", "1.0 KiB", "1.1 MiB", "99.9 MiB", "1023 KiB", "15.9 EiB"];
        assert_eq!(sizes, shown);
    }
}
