//! Systems trained with `burn-contrastive`: what the example programs share.

pub mod audit;
pub mod cli;
pub mod compare;
pub mod console;
pub mod data;
pub mod embed;
pub(crate) mod files;
pub(crate) mod lock;
pub mod memory;
pub mod models;
pub(crate) mod number;
pub(crate) mod panics;
pub mod published;
pub mod report;
pub mod signals;
pub mod systems;
pub mod training;
pub(crate) mod unique;
pub(crate) mod words;
