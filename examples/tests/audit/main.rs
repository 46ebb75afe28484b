//! The program `audit` on generated files, from the command line to what it writes: values against
//! naive f64 loops, gradients against finite differences, and every way a file can be wrong.

mod evaluation;
mod files;
mod oracle;
mod outputs;
mod properties;
mod refusals;
mod report;
#[cfg(unix)]
mod signals;
mod statistics;
