//! The log of the driver, whose lines `tests/cuda-on-cpu/src/lib.rs` describes.

use std::path::Path;

/// What one evaluation did.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    /// The kernels that were launched, in order.
    pub launches: Vec<String>,
    /// Their lines.
    pub lines: Vec<String>,
    /// What the engine said of the bytes of its passes.
    pub said: Vec<String>,
    /// The most memory that the device held beyond what it held before, in bytes: whole pages of
    /// its pools.
    pub peak: u64,
    /// What a driver would have refused.
    pub refused: Vec<String>,
}

/// The second evaluation at each shape; its memory is that of both, for the pools give little back
/// between them.
pub fn read(log: &Path) -> Vec<Evaluation> {
    let text = std::fs::read_to_string(log).expect("a log");
    let (mut found, mut now) = (Vec::new(), None::<Evaluation>);
    let (mut live, mut before, mut peak, mut refused) = (0u64, 0, 0, Vec::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "alloc" | "free" => live = words[2].parse().expect("bytes"),
            "refuse" => refused.push(line.to_owned()),
            "launch" => {
                if let Some(now) = &mut now {
                    now.launches.push(words[2].to_owned());
                    now.lines.push(line.to_owned());
                }
            }
            "mark" if words[1..].starts_with(&["begin", "first"]) => (before, peak) = (live, live),
            "mark" if words[1..].starts_with(&["begin", "second"]) => {
                now = Some(Evaluation::default());
            }
            "mark" if words[1] == "bytes" => {
                if let Some(now) = &mut now {
                    now.said.push(words[2..].join(" "));
                }
            }
            "mark" if words[1] == "end" => {
                found.extend(now.take().map(|now| Evaluation {
                    peak: peak - before,
                    ..now
                }));
            }
            _ => {}
        }
        peak = peak.max(live);
    }
    // Also what was refused before and between.
    if let Some(first) = found.first_mut() {
        first.refused = refused;
    }
    found
}
