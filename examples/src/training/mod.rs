//! The training loop: configuration, optimisation, checkpoints.

pub mod checkpoint;
pub mod comparison;
pub mod config;
pub mod device;
pub mod distributed;
pub mod evaluation;
pub(crate) mod folder;
pub mod history;
pub mod inputs;
pub mod interrupt;
pub mod learned;
pub mod objective;
pub mod optimizer;
mod options;
pub mod output;
pub mod program;
pub mod progress;
pub mod resume;
pub mod run;
pub mod schedule;
mod settings;
pub mod sharding;
pub mod strategy;
pub mod summary;
pub mod system;
pub mod trainer;
pub mod weights;
