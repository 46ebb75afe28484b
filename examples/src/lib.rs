//! Dual encoders trained with `burn-contrastive`: what the example binaries share.

pub mod audit;
pub mod data;
pub mod models;
pub mod report;
pub mod training;
