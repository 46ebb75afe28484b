//! The log of the driver, whose lines the first comment of `stub.c` describes.

use std::path::Path;

/// What one evaluation did.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The kernels that were launched, in order.
    pub launches: Vec<String>,
    /// The most memory that the device held beyond what it held at the beginning, in bytes.
    pub peak: u64,
    /// What a driver would have refused.
    pub refused: Vec<String>,
}

/// The second evaluation at each shape.
pub fn read(log: &Path) -> Vec<Evaluation> {
    let text = std::fs::read_to_string(log).expect("a log");
    let (mut found, mut now) = (Vec::new(), None::<Evaluation>);
    let (mut live, mut before, mut refused) = (0u64, 0, Vec::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "alloc" | "free" => live = words[2].parse().expect("bytes"),
            "refuse" => refused.push(line.to_owned()),
            "launch" => {
                if let Some(now) = &mut now {
                    now.launches.push(words[2].to_owned());
                }
            }
            "mark" if words[1..].starts_with(&["begin", "second"]) => {
                before = live;
                now = Some(Evaluation {
                    launches: Vec::new(),
                    peak: 0,
                    refused: Vec::new(),
                });
            }
            "mark" if words[1] == "end" => found.extend(now.take()),
            _ => {}
        }
        if let Some(now) = &mut now {
            now.peak = now.peak.max(live.saturating_sub(before));
        }
    }
    // Also what was refused before and between.
    if let Some(first) = found.first_mut() {
        first.refused = refused;
    }
    found
}
