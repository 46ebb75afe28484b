//! Whole models of CLIP and ALBEF.

use serde_json::json;

use super::{SIZES, SMALL, run, vocabulary, weights, write};
use crate::program::{ALBEF, Answer, CLIP, Count, EMBED, Place, VQA, parameters, questions, table};

#[test]
fn a_checkpoint_of_albef_starts_a_run_of_it() {
    let mut count = Count::new("a checkpoint of ALBEF");
    let place = Place::new();
    table(&place, "");
    vocabulary(&place, 30);
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/albef/albef.pth"
    );
    std::fs::copy(file, place.join("albef.pth")).unwrap();
    let init = ["--init", "albef.pth"];
    let small: Vec<_> = SMALL
        .into_iter()
        .filter(|pair| !pair.starts_with("init.new"))
        .collect();
    let heads = ["model.image.heads=3", "model.bert.heads=3"];
    count.taken(
        "--init",
        &run(&place, ALBEF, &init, &[&small[..], &heads].concat()),
    );
    let start = parameters(&place.join("run/start"));
    let weights = weights("albef/albef", "");
    let tokens = &start["model.bert.embeddings.words.weight"];
    let name = "text_encoder.bert.embeddings.word_embeddings.weight";
    assert_eq!(tokens.iter::<f32>().collect::<Vec<_>>(), weights[name].1);
    // The copy begins as the model does, not as the checkpoint's ended.
    assert_eq!(
        tokens,
        &start["momentum.encoder.bert.embeddings.words.weight"]
    );
    assert_ne!(
        weights[name],
        weights[&name.replace("text_encoder", "text_encoder_m")]
    );
    let mut all = start.iter();
    let scale = all.find(|(path, _)| path.ends_with("logit_scale.log_scale"));
    let scale: Vec<f32> = scale.unwrap().1.iter().collect();
    assert!(
        (scale[0] + weights["temp"].1[0].ln()).abs() < 1e-6,
        "{scale:?}"
    );

    let _ = std::fs::remove_dir_all(place.join("run"));
    for (program, options, pairs, reason) in [
        (
            CLIP,
            &init[..],
            &[][..],
            "layout of ALBEF, which is no dual encoder",
        ),
        (ALBEF, &init, &["model.embedding=7"], "vision_proj.weight"),
        (ALBEF, &init, &["tokens=11"], "tokens = 11 must be in"),
    ] {
        let pairs = [&small[..], pairs].concat();
        let pairs = if program.file == CLIP.file {
            &small[1..2]
        } else {
            &pairs
        };
        let answer = run(&place, program, options, pairs);
        count.refused(&format!("{pairs:?}"), &answer, reason);
        assert!(!place.join("run").exists());
    }
    // Its encoders also start answering questions; the matching head is left.
    questions(&place);
    let mut command = place.run(VQA, ["--output", "run", "--data", "questions.json"]);
    let own = [
        "tokens=9",
        "data.batch_size=4",
        "schedule.steps=1",
        small[1],
    ];
    command
        .args(init)
        .args(own.iter().chain(&heads).flat_map(|pair| ["--set", pair]));
    count.taken("vqa", &Answer::of(&mut command));
    let answers = parameters(&place.join("run/start"));
    assert_eq!(tokens, &answers["model.bert.embeddings.words.weight"]);
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

#[test]
fn clip_starts_from_one_with_a_residual_network_goes_on_and_is_not_exported() {
    let mut count = Count::new("CLIP with a residual network");
    let place = Place::new();
    table(&place, "");
    vocabulary(&place, 23);
    write(&place.join("rn.st"), &weights("models/clip_resnet", ""));
    let init = ["--init", "rn.st"];
    let pairs = [&CLIP_RUN[..], &["checkpoints.every=1"]].concat();
    count.taken("--init", &run(&place, CLIP, &init, &pairs));
    let [start, end] = ["run/start", "run"].map(|run| parameters(&place.join(run)));
    for (path, parameter) in &start {
        // Running statistics move too, and do not train.
        assert_ne!(parameter, &end[path], "{path}");
    }
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

    // The tower alone, in a model whose settings fit.
    let beside = json!({"model_cfg": {"vision_cfg": {"width": 2, "head_width": 16}}});
    place.write("open_clip_config.json", beside.to_string());
    let tower = ["--init-image", "rn.st"];
    let image = |blocks: &str| {
        let blocks = format!("\"blocks\": {blocks}");
        format!("model.image={{{blocks}, \"width\": 2, \"heads\": 4, \"image_size\": 64}}")
    };
    std::fs::remove_dir_all(place.join("run")).unwrap();
    let [fits, other] = ["[2, 1, 1, 1]", "[1, 1, 1, 1]"].map(image);
    let pairs = [&CLIP_RUN[..1], &CLIP_RUN[2..4], &[&fits]].concat();
    count.taken("--init-image", &run(&place, CLIP, &tower, &pairs));
    let same = parameters(&place.join("run/start"));
    let path = "image.attention.query.weight";
    assert_eq!(same[path], start[path]);
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
