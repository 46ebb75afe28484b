//! The program `audit` on generated files, from the command line to what it writes: values against
//! naive f64 loops, gradients against finite differences, and every way a file can be wrong. And
//! its page in a browser, beside that of a training run, which is made of the same parts.

mod browser;
mod evaluation;
mod files;
mod oracle;
mod outputs;
mod page;
mod properties;
mod refusals;
#[cfg(unix)]
mod signals;
mod statistics;

// What the unit tests of the library's reports share with these; it names `crate::report`.
use burn_contrastive_examples::report;
#[path = "../../src/report/tests/sample.rs"]
mod sample;
#[path = "../../src/report/tests/shown.rs"]
mod shown;
