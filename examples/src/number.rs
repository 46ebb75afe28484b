//! Formats values for programs (JSON) and for people (text).

/// Serialises an `f64` as a JSON number where it is finite, and as `null` where it is not; reads
/// `null` as NaN.
pub(crate) mod or_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        value.is_finite().then_some(*value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}

/// As [`or_null`], for each number of a list.
pub(crate) mod each_or_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Number(#[serde(with = "super::or_null")] f64);

    pub fn serialize<S: Serializer>(numbers: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(numbers.iter().map(|&number| Number(number)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let numbers = Vec::<Number>::deserialize(deserializer)?;
        Ok(numbers.into_iter().map(|Number(number)| number).collect())
    }
}

/// A number as `format!` writes it, with commas between the thousands.
pub(crate) fn separated(text: &str) -> String {
    let integer = text.find('.').unwrap_or(text.len());
    let mut separated = String::with_capacity(text.len() + integer / 3);
    for (position, character) in text.char_indices() {
        let thousands = position < integer && (integer - position).is_multiple_of(3);
        if thousands && separated.ends_with(|before: char| before.is_ascii_digit()) {
            separated.push(',');
        }
        separated.push(character);
    }
    separated
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(value: u64) -> String {
    separated(&value.to_string())
}

/// `1 pair`, `1,500 pairs`.
pub(crate) fn counted(count: impl TryInto<u64>, noun: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(count))
}

/// A value with `decimals` places; scientific where that would be long, a dash where it is not
/// finite.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        "–".to_string()
    } else if value.abs() >= 1e7 {
        format!("{value:.2e}")
    } else {
        let text = separated(&format!("{value:.decimals$}"));
        // Rounding leaves a minus sign on small negative values.
        match text.strip_prefix('-') {
            Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.')) => rest.to_string(),
            _ => text,
        }
    }
}

/// A recall or another score in percent, or a sum of them: one decimal; below one, two significant
/// digits, since chance is small and no score is nothing unless it is zero.
pub(crate) fn score(value: f64) -> String {
    match value {
        1e-5..0.95 => fixed(value, (1.0 - value.log10().floor()) as usize),
        0.0..1e-5 if value > 0.0 => format!("{value:.1e}"),
        _ => fixed(value, 1),
    }
}

/// A rank: whole where it is, else with one decimal.
pub(crate) fn rank(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e7 {
        grouped(value as u64)
    } else {
        fixed(value, 1)
    }
}

/// A value of any magnitude, with about four significant digits.
pub(crate) fn significant(value: f64) -> String {
    let magnitude = value.abs();
    if !value.is_finite() {
        "–".to_string()
    } else if magnitude == 0.0 {
        "0".to_string()
    } else if !(1e-4..1e6).contains(&magnitude) {
        format!("{value:.2e}")
    } else {
        let decimals = (3 - magnitude.log10().floor() as i32).max(0) as usize;
        separated(&format!("{value:.decimals$}"))
    }
}

/// Formats the ticks of an axis whose values span `span`: as many decimals as tell neighbours
/// apart.
pub(crate) fn tick(value: f64, low: f64, high: f64) -> String {
    let span = high - low;
    let largest = low.abs().max(high.abs());
    if value.abs() < span * 1e-9 {
        "0".to_string()
    } else if !(1e-3..1e7).contains(&largest) {
        // Plain `e` notation has no trailing zeros: 2e-5, 1.5e-4.
        let digits = (largest / span).log10().max(0.0).ceil() as usize + 2;
        let rounded: f64 = format!("{value:.digits$e}").parse().unwrap_or(value);
        format!("{rounded:e}")
    } else {
        let decimals = (1.0 - span.log10().floor()).clamp(0.0, 9.0) as usize;
        let text = separated(&format!("{value:.decimals$}"));
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        } else {
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1000), "1,000");
        assert_eq!(grouped(123_456_789), "123,456,789");
    }

    #[test]
    fn every_format_groups_thousands_alike() {
        assert_eq!(fixed(20_833.54, 1), "20,833.5");
        assert_eq!(fixed(-1_234_567.0, 0), "-1,234,567");
        assert_eq!(fixed(-123.4567, 4), "-123.4567");
        assert_eq!(rank(20_833.5), "20,833.5");
        assert_eq!(significant(54_321.9), "54,322");
        assert_eq!(score(1_800.0), "1,800.0");
        assert_eq!(tick(150_000.0, 0.0, 2e5), "150,000");
        assert_eq!(tick(2_000_000.0, 0.0, 3e6), "2,000,000");
        assert_eq!(counted(1_801, "pair"), "1,801 pairs");
    }

    #[test]
    fn one_is_not_counted_in_the_plural() {
        assert_eq!(counted(0, "pair"), "0 pairs");
        assert_eq!(counted(1, "pair"), "1 pair");
        assert_eq!(counted(2, "pair"), "2 pairs");
    }

    #[test]
    fn a_small_score_does_not_show_as_nothing() {
        assert_eq!(score(0.0), "0.0");
        assert_eq!(score(3e-6), "3.0e-6");
        assert_eq!(score(0.004), "0.0040");
        assert_eq!(score(0.02), "0.020");
        assert_eq!(score(0.0667), "0.067");
        assert_eq!(score(0.94), "0.94");
        assert_eq!(score(0.999), "1.0");
        assert_eq!(score(73.44), "73.4");
        assert_eq!(score(f64::NAN), "–");
    }

    #[test]
    fn values_that_are_not_finite_show_a_dash() {
        assert_eq!(fixed(f64::NAN, 1), "–");
        assert_eq!(significant(f64::INFINITY), "–");
        assert_eq!(rank(f64::NAN), "–");
    }

    #[test]
    fn a_rounded_zero_has_no_sign() {
        assert_eq!(fixed(-0.04, 1), "0.0");
        assert_eq!(fixed(-0.4, 1), "-0.4");
    }

    #[test]
    fn ticks_are_short_and_distinct() {
        assert_eq!(tick(0.5, 0.0, 1.0), "0.5");
        assert_eq!(tick(100.0, 0.0, 100.0), "100");
        assert_eq!(tick(2e-5, 0.0, 1e-4), "2e-5");
        assert_eq!(tick(2.5e30, 0.0, 3e30), "2.5e30");
        assert_eq!(tick(1e-17, -1.0, 1.0), "0");
        let (low, high) = (14.28, 14.29);
        assert_ne!(tick(14.284, low, high), tick(14.286, low, high));
    }
}
