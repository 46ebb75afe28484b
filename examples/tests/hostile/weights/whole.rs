//! Whole models of CLIP and ALBEF.

use serde_json::json;

use super::{SIZES, SMALL, run, vocabulary, weights, write};
use crate::program::{ALBEF, Answer, CLIP, Count, EMBED, Place, VQA, parameters, questions, table};

const INIT: [&str; 2] = ["--init", "albef.pth"];

/// What the shapes of the fixture do not tell.
const HEADS: [&str; 2] = ["model.image.heads=3", "model.bert.heads=3"];

/// The path of the embeddings of words, and ALBEF's name for it.
const WORDS: &str = "model.bert.embeddings.words.weight";
const THEIRS: &str = "text_encoder.bert.embeddings.word_embeddings.weight";

/// A place with a checkpoint of ALBEF and a vocabulary, and settings of a small run on it.
fn with_albef() -> (Place, Vec<&'static str>) {
    let place = Place::new();
    table(&place, "");
    vocabulary(&place, 30);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/albef");
    std::fs::copy(format!("{folder}/albef.pth"), place.join("albef.pth")).unwrap();
    let small = SMALL.into_iter();
    let small = small.filter(|pair| !pair.starts_with("init.new"));
    (place, small.collect())
}

#[test]
fn a_checkpoint_of_albef_starts_a_run_of_it() {
    let mut count = Count::new("a checkpoint of ALBEF");
    let (place, small) = with_albef();
    let pairs = [&small[..], &HEADS].concat();
    count.taken("--init", &run(&place, ALBEF, &INIT, &pairs));
    let start = parameters(&place.join("run/start"));
    let weights = weights("albef/albef", "");
    let words: Vec<f32> = start[WORDS].iter().collect();
    assert_eq!(words, weights[THEIRS].1);
    // The copy begins as the model does, not as the checkpoint's ended.
    let copy = WORDS.replace("model.", "momentum.encoder.");
    assert_eq!(start[WORDS], start[&copy]);
    let ended = THEIRS.replace("text_encoder", "text_encoder_m");
    assert_ne!(weights[THEIRS], weights[&ended]);
    let mut all = start.iter();
    let scale = all.find(|(path, _)| path.ends_with("logit_scale.log_scale"));
    let scale: Vec<f32> = scale.unwrap().1.iter().collect();
    let temperature = weights["temp"].1[0];
    assert!((scale[0] + temperature.ln()).abs() < 1e-6, "{scale:?}");
}

#[test]
fn a_checkpoint_of_albef_starts_other_runs_too_or_is_refused() {
    let mut count = Count::new("a checkpoint of ALBEF for others");
    let (place, small) = with_albef();
    let wide = [&small[..], &["model.embedding=7"]].concat();
    let long = [&small[..], &["tokens=11"]].concat();
    for (program, pairs, reason) in [
        (CLIP, &small[1..2], "layout of ALBEF, which is no dual"),
        (ALBEF, &wide, "vision_proj.weight"),
        (ALBEF, &long, "tokens = 11 must be in"),
    ] {
        let answer = run(&place, program, &INIT, pairs);
        count.refused(&format!("{pairs:?}"), &answer, reason);
        assert!(!place.join("run").exists());
    }
    // Its encoders also start answering questions; the matching head is left.
    questions(&place);
    let mut command = place.run(VQA, ["--output", "run", "--data", "questions.json"]);
    let own = ["tokens=9", small[0], small[1], "schedule.steps=1"];
    let pairs = own.iter().chain(&HEADS).flat_map(|pair| ["--set", pair]);
    count.taken("vqa", &Answer::of(command.args(INIT).args(pairs)));
    let words = &parameters(&place.join("run/start"))[WORDS];
    let words: Vec<f32> = words.iter().collect();
    assert_eq!(words, weights("albef/albef", "")[THEIRS].1);
    std::fs::remove_dir_all(place.join("run")).unwrap();

    // Of a tower alone, the rest is of no use.
    let tower = ["--init-image", "albef.pth", "--init-text", "albef.pth"];
    let sizes = [&small[..], &SIZES].concat();
    count.taken("towers", &run(&place, ALBEF, &tower, &sizes));
}

/// Settings of a small run of `clip` on weights of a fixture.
const CLIP_RUN: [&str; 6] = [
    "data.batch_size=4",
    "data.tokenizer=vocab.txt",
    "schedule.steps=2",
    "schedule.warmup_steps=0",
    "model.image.heads=4",
    "model.text.heads=2",
];

/// A place with weights of CLIP that have a residual network, and a vocabulary.
fn with_resnet() -> Place {
    let place = Place::new();
    table(&place, "");
    vocabulary(&place, 23);
    write(&place.join("rn.st"), &weights("models/clip_resnet", ""));
    place
}

#[test]
fn clip_starts_from_one_with_a_residual_network_goes_on_and_is_not_exported() {
    let mut count = Count::new("CLIP with a residual network");
    let place = with_resnet();
    let init = ["--init", "rn.st"];
    let pairs = [&CLIP_RUN[..], &["checkpoints.every=1"]].concat();
    count.taken("--init", &run(&place, CLIP, &init, &pairs));
    let [start, end] = ["run/start", "run"].map(|run| parameters(&place.join(run)));
    // Running statistics move too, and do not train. (A key's bias changes no attention: its
    // gradient is rounding alone, or 0.)
    let is_still = |path: &&String| start[*path] == end[*path] && !path.ends_with("key.bias");
    let still: Vec<&String> = start.keys().filter(is_still).collect();
    assert_eq!(still, [""; 0]);
    let mut command = place.run(CLIP, ["--resume", "run", "--set", "schedule.steps=3"]);
    count.taken("--resume", &Answer::of(&mut command));
    let embed = |weights: &str, output: &str| {
        let words = [
            "--data",
            "table.csv",
            "--weights",
            weights,
            "--output",
            output,
        ];
        Answer::of(&mut place.run(EMBED, words))
    };
    count.taken("embed", &embed("run", "run.st"));
    let mut export = place.run(CLIP, ["export", "--init", "run", "--output", "hf"]);
    let answer = Answer::of(&mut export);
    count.refused("export", &answer, "CLIPModel has only vision transformers");
    assert!(!place.join("hf").exists());
}

#[test]
fn a_residual_network_starts_alone_where_the_settings_fit() {
    let mut count = Count::new("a residual network alone");
    let place = with_resnet();
    let init = ["--init", "rn.st"];
    let beside = json!({"model_cfg": {"vision_cfg": {"width": 2, "head_width": 16}}});
    place.write("open_clip_config.json", beside.to_string());
    let tower = ["--init-image", "rn.st"];
    let image = |blocks: &str| {
        let blocks = format!("\"blocks\": {blocks}");
        format!("model.image={{{blocks}, \"width\": 2, \"heads\": 4, \"image_size\": 64}}")
    };
    let [fits, other] = ["[2, 1, 1, 1]", "[1, 1, 1, 1]"].map(image);
    let pairs = [&CLIP_RUN[..1], &CLIP_RUN[2..4], &[&fits]].concat();
    count.taken("--init-image", &run(&place, CLIP, &tower, &pairs));
    let start = parameters(&place.join("run/start"));
    let file = weights("models/clip_resnet", "");
    for (ours, theirs) in [
        ("conv1.weight", "conv1.weight"),
        ("attention.query.bias", "attnpool.q_proj.bias"),
        ("stages.3.0.bn3.running_var", "layer4.0.bn3.running_var"),
    ] {
        let values: Vec<f32> = start[&format!("image.{ours}")].iter().collect();
        assert_eq!(values, file[&format!("visual.{theirs}")].1, "{ours}");
    }
    std::fs::remove_dir_all(place.join("run")).unwrap();
    let pairs = [&CLIP_RUN[..1], &[&other]].concat();
    let answer = run(&place, CLIP, &tower, &pairs);
    count.refused(
        "another tower",
        &answer,
        "--set model.image.blocks=[2,1,1,1]",
    );
    for (pair, reason) in [
        (
            "model.image=rn51",
            "there is no image encoder `rn51`; there is rn50",
        ),
        (
            "model.image.image_size=48",
            "a multiple of a place of the last stage = 32",
        ),
        ("model.image.image_size=32", "leaves one place"),
        ("model.image.heads=3", "image.heads = 3"),
        ("model.image.blocks=[]", "0 stages"),
    ] {
        let pairs = [&CLIP_RUN[..], &[pair]].concat();
        count.refused(pair, &run(&place, CLIP, &init, &pairs), reason);
    }
    assert!(!place.join("run").exists());
}
