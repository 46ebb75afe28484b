//! `compare`: which objective is best where negatives are false.

pub mod contenders;
pub mod data;
pub mod embeddings;
pub mod figures;
pub mod list;
pub mod plan;
pub mod probe;
pub mod report;
pub mod results;
pub mod setup;
pub mod side_by_side;
pub mod statistics;
pub mod trial;
pub mod work;
