//! The training loop: configuration, optimisation, checkpoints.

pub mod checkpoint;
pub mod config;
pub mod device;
pub mod distributed;
pub mod evaluation;
mod folder;
pub mod history;
mod inputs;
pub mod interrupt;
pub mod objective;
pub mod optimizer;
pub mod progress;
pub mod resume;
pub mod run;
pub mod schedule;
mod settings;
pub mod sharding;
pub mod step;
pub mod strategy;
pub mod summary;
pub mod trainer;
