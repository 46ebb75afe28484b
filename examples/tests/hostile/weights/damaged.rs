//! Files that are damaged, lie, have code in them, or are of something else.

use super::{Tensors, run, vocabulary, weights, write};
use crate::program::{ALBEF, Answer, CLIP, Count, EMBED, Place, table};

/// Settings of a run of `clip` on the weights of its fixture.
const PAIRS: [&str; 6] = [
    "data.batch_size=4",
    "data.tokenizer=vocab.txt",
    "schedule.steps=1",
    "schedule.warmup_steps=0",
    "model.image.heads=2",
    "model.text.heads=2",
];

fn place() -> Place {
    let place = Place::new();
    table(&place, "");
    vocabulary(&place, 23);
    place
}

fn clip() -> Tensors {
    weights("models/clip_open", "")
}

fn embed(place: &Place, file: &str) -> Answer {
    let words = [
        "--data",
        "table.csv",
        "--output",
        "out.st",
        "--weights",
        file,
    ];
    let mut command = place.run(EMBED, words);
    Answer::of(command.args(["--tokenizer", "vocab.txt"]))
}

/// That `clip --init` and `embed --weights` refuse a file, and leave nothing.
fn refused(count: &mut Count, place: &Place, input: &str, file: &str, reason: &str) {
    let answer = run(place, CLIP, &["--init", file], &PAIRS);
    count.refused(input, &answer, reason);
    count.refused(input, &embed(place, file), "");
    for left in ["run", "out.st", "made"] {
        assert!(!place.join(left).exists(), "{input} left {left}");
    }
}

/// A file of safetensors with that header, and so many bytes behind it.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

#[test]
fn what_holds_no_weights_is_refused_and_leaves_nothing() {
    let mut count = Count::new("files without weights");
    let place = place();
    let whole = place.join("whole.st");
    write(&whole, &clip());
    let whole = std::fs::read(whole).unwrap();
    // A program in a pickle, by itself and in the place of a state dict.
    let call = b"cposix\nsystem\n(S'touch made'\ntR.";
    let in_dict = b"\x80\x02}q\x00X\x05\x00\x00\x00modelq\x01cposix\nsystem\n(S'touch made'\ntRs.";
    let lie = |shape: &str, end: &str| {
        let info = format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}"#);
        safetensors(&format!(r#"{{"visual.class_embedding":{info}}}"#), 8)
    };
    let mut long = safetensors("{}", 8);
    long[..8].copy_from_slice(&(1_u64 << 63).to_le_bytes());
    let bad = "--init: no run in bad, nor weights";
    for (input, content) in [
        ("an empty file", &b""[..]),
        ("a word", b"weights"),
        ("half", &whole[..whole.len() / 2]),
        ("a byte less", &whole[..whole.len() - 1]),
        ("a header alone", &whole[..200]),
        ("no tensors", &safetensors("{}", 0)),
        ("offsets of 2^63", &lie("[2]", "9223372036854775808")),
        ("a shape of 2^63", &lie("[9223372036854775808]", "8")),
        (
            "a shape that overflows",
            &lie("[4294967296, 4294967296, 2]", "8"),
        ),
        ("a shape that is not there", &lie("[3]", "12")),
        ("a header of 2^63 bytes", &long),
        ("code", call),
        ("code in a state dict", in_dict),
        (
            "an archive of nothing",
            b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ),
    ] {
        place.write("bad", content);
        refused(&mut count, &place, input, "bad", bad);
    }
    std::fs::create_dir(place.join("folder")).unwrap();
    let reason = "no run in folder, nor weights";
    refused(&mut count, &place, "a folder", "folder", reason);
    refused(&mut count, &place, "nothing", "absent", "no run in absent");
}

/// A matrix of the first layer.
const FIRST: &str = "visual.transformer.resblocks.0.mlp.c_fc.weight";

/// The fixture's weights without one of them.
fn without(name: &str) -> Tensors {
    let mut tensors = clip();
    tensors.remove(name).unwrap();
    tensors
}

/// The fixture's weights with one that is of that shape, filled with a value.
fn with(name: &str, shape: &[usize], value: f32) -> Tensors {
    let mut tensors = clip();
    let values = vec![value; shape.iter().product()];
    tensors.insert(name.to_string(), (shape.to_vec(), values));
    tensors
}

#[test]
fn weights_of_something_else_are_refused_by_name_and_leave_nothing() {
    let mut count = Count::new("weights of something else");
    let place = place();
    let renamed: Tensors = clip()
        .into_iter()
        .map(|(name, tensor)| (name.replace("visual.", "vision_tower."), tensor))
        .collect();
    let fewer = with("token_embedding.weight", &[24, 12], 0.0);
    for (input, tensors, reason) in [
        ("other names", renamed, "of no layout that is known here"),
        ("BERT", weights("models/bert", ""), "no dual encoder"),
        ("ViT", weights("models/vit", ""), "no dual encoder"),
        ("a parameter less", without(FIRST), FIRST),
        ("no projection", without("visual.proj"), "lacks visual.proj"),
        (
            "one more",
            with("visual.more", &[2], 0.0),
            "has visual.more",
        ),
        ("other words", fewer, "the tokenizer has 23 tokens"),
    ] {
        write(&place.join("bad"), &tensors);
        refused(&mut count, &place, input, "bad", reason);
    }
    // A tower of another kind than the model's.
    let answer = run(&place, ALBEF, &["--init-image", "bad"], &PAIRS[..1]);
    count.refused("a tower", &answer, "--set model.image.layout=clip");
    assert!(!place.join("run").exists());

    // What is right is taken, so that the above is refused for its own sake.
    write(&place.join("good"), &clip());
    count.taken("good", &run(&place, CLIP, &["--init", "good"], &PAIRS));
    count.taken("good", &embed(&place, "good"));
}

#[test]
fn shapes_and_numbers_that_no_model_has_are_refused_and_leave_nothing() {
    let mut count = Count::new("shapes and numbers of weights");
    let place = place();
    const POSITIONS: &str = "visual.positional_embedding";
    let shape = clip()[FIRST].0.clone();
    let mut number = clip();
    number.get_mut(FIRST).unwrap().1[3] = f32::NAN;
    let huge = 1 << 62;
    let patches = with("visual.conv1.weight", &[0, 3, huge, huge], 0.0);
    let (fits, range) = ("does not fit", "must be in 1..=");
    for (input, tensors, reason) in [
        ("turned", with(FIRST, &[shape[1], shape[0]], 0.0), fits),
        ("another rank", with(FIRST, &[shape[0]], 0.0), fits),
        ("a number", with(FIRST, &[], 0.0), fits),
        ("NaN", number, "has a number that is not finite"),
        ("infinity", with(FIRST, &shape, f32::INFINITY), "not finite"),
        ("no channels", patches, range),
        ("no positions", with(POSITIONS, &[0, 16], 0.0), range),
        ("2^62 of nothing", with(POSITIONS, &[huge, 0], 0.0), range),
    ] {
        write(&place.join("bad"), &tensors);
        refused(&mut count, &place, input, "bad", reason);
    }
}
