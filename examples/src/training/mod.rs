//! The training loop: configuration, optimisation, checkpoints.
pub mod device;
pub mod optimizer;
pub mod schedule;
