//! Checks of the settings of models, for messages alike.

use anyhow::{Result, ensure};

/// More than any machine trains that runs these programs.
const MOST_PARAMETERS: f64 = 2e10;

/// Checks that a size is in `1..=most`.
pub fn size(name: &str, value: usize, most: usize) -> Result<()> {
    ensure!(
        (1..=most).contains(&value),
        "{name} = {value} must be in 1..={most}"
    );
    Ok(())
}

/// Checks that `divisor` divides `value`.
pub fn multiple(name: &str, value: usize, divisor_name: &str, divisor: usize) -> Result<()> {
    ensure!(
        value.is_multiple_of(divisor),
        "{name} = {value} must be a multiple of {divisor_name} = {divisor}"
    );
    Ok(())
}

/// Checks a number of layers.
pub fn layers(name: &str, value: usize) -> Result<()> {
    ensure!(value <= 1000, "{name} = {value} must be in 0..=1000");
    Ok(())
}

/// Checks a dropout rate.
pub fn dropout(name: &str, value: f64) -> Result<()> {
    ensure!(
        (0.0..1.0).contains(&value),
        "{name} = {value} must be in [0, 1)"
    );
    Ok(())
}

/// Checks that a model of about so many parameters is not absurdly large.
pub fn parameters(about: f64) -> Result<()> {
    ensure!(
        about <= MOST_PARAMETERS,
        "about {about:.1e} parameters are more than {MOST_PARAMETERS:.0e}"
    );
    Ok(())
}
