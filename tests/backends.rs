//! One suite on every backend whose feature is on: a test's name ends in its backend and its own
//! name, as in `suite::info_nce::values::flex::matches_open_clip`. All of one backend:
//! `cargo test --test backends flex::`.

#![allow(deprecated)] // `Device::ndarray`: Burn retires it, this crate keeps it tested.

mod oracle;
mod suite;
