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

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A value with `decimals` places; scientific where that would be long, a dash where it is not
/// finite.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        "–".to_string()
    } else if value.abs() >= 1e7 {
        format!("{value:.2e}")
    } else {
        let text = format!("{value:.decimals$}");
        // Rounding leaves a minus sign on small negative values.
        match text.strip_prefix('-') {
            Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.')) => rest.to_string(),
            _ => text,
        }
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
        format!("{value:.decimals$}")
    }
}

/// Formats the ticks of an axis whose values span `span`: as many decimals as tell neighbours
/// apart.
pub(crate) fn tick(value: f64, low: f64, high: f64) -> String {
    let span = high - low;
    let largest = low.abs().max(high.abs());
    if value.abs() < span * 1e-9 {
        "0".to_string()
    } else if !(1e-3..1e5).contains(&largest) {
        // Plain `e` notation has no trailing zeros: 2e-5, 1.5e-4.
        let digits = (largest / span).log10().max(0.0).ceil() as usize + 2;
        let rounded: f64 = format!("{value:.digits$e}").parse().unwrap_or(value);
        if (1e5..1e9).contains(&largest) && rounded.fract() == 0.0 {
            thousands(rounded)
        } else {
            format!("{rounded:e}")
        }
    } else {
        let decimals = (1.0 - span.log10().floor()).clamp(0.0, 9.0) as usize;
        let text = format!("{value:.decimals$}");
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        } else {
            text
        }
    }
}

/// `150000` as `150k`, `2000000` as `2M`.
fn thousands(value: f64) -> String {
    let (scaled, unit) = if value.abs() >= 1e6 {
        (value / 1e6, "M")
    } else {
        (value / 1e3, "k")
    };
    format!("{scaled}{unit}")
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
        assert_eq!(tick(150_000.0, 0.0, 2e5), "150k");
        assert_eq!(tick(2.5e30, 0.0, 3e30), "2.5e30");
        assert_eq!(tick(1e-17, -1.0, 1.0), "0");
        let (low, high) = (14.28, 14.29);
        assert_ne!(tick(14.284, low, high), tick(14.286, low, high));
    }
}
