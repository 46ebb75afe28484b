//! The commands of `docs/fine-tuning.md`, one after the other, on small files of the names that
//! they have there.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::embed::{vocabulary, write_clip};
use super::program::{Answer, Count, Place, Program, metrics, picture};

const GUIDE: &str = include_str!("../../../docs/fine-tuning.md");

/// The programs of the guide's commands.
const PROGRAMS: [(&str, &str); 5] = [
    ("audit", env!("CARGO_BIN_EXE_audit")),
    ("clip", env!("CARGO_BIN_EXE_clip")),
    ("embed", env!("CARGO_BIN_EXE_embed")),
    ("search", env!("CARGO_BIN_EXE_search")),
    ("zero-shot", env!("CARGO_BIN_EXE_zero-shot")),
];

/// What makes a training small.
const SMALL: [&str; 3] = [
    "schedule.steps=2",
    "schedule.warmup_steps=0",
    "data.batch_size=4",
];

/// The commands of a text's blocks of `sh`, without comments.
fn commands(text: &str) -> Vec<String> {
    let blocks = text.split("```sh\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    let joined: String = blocks.map(|block| block.replace("\\\n", " ")).collect();
    let lines = joined.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_string).collect()
}

/// The name, the program and the arguments of a command.
fn parse(command: &str) -> (&'static str, Program, Vec<String>) {
    let words = shlex::split(command).unwrap_or_else(|| panic!("quotes: {command}"));
    let (start, rest) = words.split_at(5);
    assert_eq!(
        start[..4],
        ["cargo", "run", "--release", "--bin"],
        "{command}"
    );
    let known = PROGRAMS.iter().find(|(name, _)| *name == start[4]);
    let (name, file) = known.unwrap_or_else(|| panic!("no program is known for {command}"));
    assert_eq!(rest[0], "--", "{command}");
    let program = Program {
        file,
        command: &[],
        small: &[],
    };
    (name, program, rest[1..].to_vec())
}

/// What the guide's reader has.
fn place() -> Place {
    let place = Place::new();
    write_clip(&place.join("ViT-B-32.safetensors"), None);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&vocabulary()).unwrap();
    place.write("bpe_simple_vocab_16e6.txt.gz", packed.finish().unwrap());
    let mut table = String::from("image,caption\n");
    for index in 0..40 {
        let class = ["cat", "dog"][index % 2];
        let name = format!("photos/{class}/{index}.png");
        picture(&place.join(&name), [6 * index as u8, 99, 200]);
        table += &format!("{name},a {class} with number {index}\n");
    }
    place.write("photos.csv", table);
    let classes = json!({"templates": ["a photo of a {}."], "classes": ["cat", "dog"]});
    place.write("classes.json", classes.to_string());
    place
}

#[test]
fn every_command_of_the_guide_does_what_it_says() {
    let mut count = Count::new("commands of docs/fine-tuning.md");
    let place = place();
    for command in commands(GUIDE) {
        let (name, program, arguments) = parse(&command);
        let mut run = place.run(program, &arguments);
        if name == "clip" && arguments.iter().any(|word| word == "--data") {
            run.args(SMALL.iter().flat_map(|pair| ["--set", pair]));
        }
        count.taken(&command, &Answer::of(&mut run));
        // What it is to write, where it says so.
        for option in ["--output", "--report", "--metrics"] {
            let after = arguments.iter().skip_while(|word| *word != option).nth(1);
            if let Some(file) = after {
                assert!(place.join(file).exists(), "{command}: no {file}");
            }
        }
    }
    let config: Value =
        serde_json::from_slice(&fs::read(place.join("run/config.json")).unwrap()).unwrap();
    assert_eq!(
        config["model"]["text"]["context"], 16,
        "the model is that of the weights"
    );
    assert!(metrics(&place.join("run"))["retrieval"]["after"].is_object());
    // The guide's own way to look at what came out.
    let embedded = |name: &str| fs::read(place.join(name)).unwrap();
    assert_ne!(
        embedded("before.safetensors"),
        embedded("after.safetensors")
    );
    assert!(place.join("my-clip/model.safetensors").exists());
}

#[test]
fn a_command_that_is_not_known_is_found() {
    let blocks = "text\n```sh\n# a comment\ncargo run \\\n    --release --bin embed -- --a 'b c'\n\
                  ```\n```rust\nlet x;\n```\n```sh\nls\n```\n";
    let found = commands(blocks);
    assert_eq!(found.len(), 2);
    let (name, _, arguments) = parse(&found[0]);
    assert_eq!(
        (name, arguments),
        ("embed", vec!["--a".into(), "b c".into()])
    );
    for unknown in [
        "cargo run --release --bin train -- --data x",
        "pip install torch and more",
    ] {
        assert!(
            std::panic::catch_unwind(|| parse(unknown)).is_err(),
            "{unknown}"
        );
    }
    assert!(
        commands(GUIDE).len() >= 7,
        "the guide's commands are not found"
    );
}
