//! Checks the parameters of an objective by building it: until [`ObjectiveConfig`] has a check that
//! returns an error, a panic of its `init` is turned into one.
//!
//! The whole file goes once there is such a check; its callers are `training::objective` and
//! `audit::measure`.

use std::cell::Cell;
use std::panic;
use std::sync::Once;

use anyhow::{Result, anyhow};
use burn::tensor::Device;
use burn_contrastive::objective::ObjectiveConfig;

/// Checks the values of the parameters.
///
/// # Errors
///
/// If a value is out of range, with the message that names it.
pub fn check_parameters(config: &ObjectiveConfig) -> Result<()> {
    keep_expected_panics_quiet();
    QUIET.set(true);
    let result = panic::catch_unwind(|| config.init(&device()));
    QUIET.set(false);
    result
        .map(drop)
        .map_err(|payload| match payload.downcast::<String>() {
            Ok(message) => anyhow!(message),
            Err(_) => anyhow!("`{}` could not be built", config.name()),
        })
}

/// A device that is certain to exist, if one does.
fn device() -> Device {
    #[cfg(feature = "flex")]
    return Device::flex();
    #[cfg(not(feature = "flex"))]
    Device::default()
}

thread_local! {
    /// Whether a panic of this thread is about to become an error.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Silences the panic hook for the panics that are caught here, and for no others.
fn keep_expected_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                hook(panic);
            }
        }));
    });
}
