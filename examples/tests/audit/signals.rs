//! Ctrl-C leaves all files or none.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use safetensors::tensor::Dtype;

use super::files::{Files, Tensors, floats, random};

/// Embeddings that take seconds.
fn many() -> Tensors {
    const PAIRS: usize = 300;
    let side = |seed| floats(Dtype::F32, &[PAIRS, 8], &random(PAIRS * 8, seed));
    Tensors::from([
        ("image".to_string(), side(1)),
        ("text".to_string(), side(2)),
    ])
}

#[test]
fn a_signal_leaves_all_files_or_none() {
    let files = Files::new(&many());
    for (signal, moment) in [("INT", "retrieval"), ("TERM", "info-nce"), ("INT", "vse")] {
        let mut command = files.program();
        command.args(["--embeddings", "pairs.safetensors", "--json", "o.json"]);
        command.args(["--gradients", "o.safetensors", "--report", "o.html"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        lines
            .find(|line| line.as_ref().unwrap().contains(moment))
            .unwrap()
            .unwrap();
        assert!(files.names().len() > 1, "nothing is begun");
        let signal = format!("-{signal}");
        let process = child.id().to_string();
        let sent = Command::new("kill").args([signal, process]).status();
        assert!(sent.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "{moment}");
        assert_eq!(files.names(), ["pairs.safetensors"], "{moment}");
    }
}
