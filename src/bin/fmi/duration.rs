//! Durations on the command line.

use std::time::Duration;

/// Reads a number with a unit, `ms`, `s` (also if there is none), `m` or `h`:
/// `1.5s`, `200ms`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[number.len()..] {
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("\"{unit}\" is none of the units ms, s, m and h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("\"{number}\" is not a number"))?;
    Duration::try_from_secs_f64(number * factor).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood() {
        assert_eq!(parse("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        for wrong in ["", "s", "2d", "-1s", "1e", "inf", "nan"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
