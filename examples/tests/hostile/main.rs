//! Hostile use of the programs and their subcommands: files, arguments, settings, damaged runs,
//! signals, closed pipes, two programs at once. Nothing may panic, abort, hang or lie. And the use
//! that a guide shows.
//!
//! Each test prints how many inputs it tried, how many were refused with a message, and how many
//! the program took (`cargo test --release --test hostile -- --nocapture`).
#![cfg(unix)]

mod albef;
mod arguments;
mod data;
mod embed;
mod events;
mod guide;
mod init;
mod it_contrast;
mod program;
mod programs;
mod radiograph;
mod rows;
mod runs;
mod shards;
mod stages;
mod tuned;
mod visual_semantic;
mod weights;
