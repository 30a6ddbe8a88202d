//! Durations as operators write them: `250ms`, `30s`, `5m`, `1h`.

use std::time::Duration;

/// One number and one unit, as in the configuration.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("`{text}` is not a duration: write `250ms`, `30s`, `5m` or `1h`")),
    };
    let number: u64 =
        number.parse().map_err(|_| format!("`{text}` is not a duration: a number comes first, as in `30s`"))?;
    let millis = number.checked_mul(millis_per_unit).ok_or_else(|| format!("`{text}` is too long"))?;
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_number_and_one_unit() {
        for (text, millis) in [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "m", "5 m", "5d", "-5m", "1h30m", "1.5s", "99999999999999999999s", "9999999999999999999h"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
