//! `compare`: which objective is best where negatives are false.
//!
//! ```text
//! Setup ──► Material ──► Trial ──► Figures, Looks ──► Run ──► Results ──► report
//!           (in memory,  (one      (of embeddings,    └─ one line of the file
//!            batches at   training) of weights)
//!            a rate)
//! ```
//!
//! What is to do next follows from the results alone ([`plan`]); programs that work side by side
//! ([`side_by_side`]) claim a trial each, run it and add it to the file ([`work`]). Nothing is
//! decided by the test images: settings are chosen by validation, before.

pub mod chance;
pub mod contenders;
pub mod data;
pub mod embeddings;
pub mod figures;
pub mod list;
pub mod plan;
pub mod probe;
pub mod report;
pub mod results;
pub mod search;
pub mod setup;
pub mod side_by_side;
pub mod statistics;
pub mod trial;
pub mod work;
