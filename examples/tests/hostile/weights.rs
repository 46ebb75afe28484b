//! `--init`, `--init-image` and `--init-text` with files of published weights: what is taken, and
//! what is refused.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::TensorData;
use burn_contrastive_examples::published::{Key, Layout};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::program::{
    ALBEF, Answer, CLIP, Count, EMBED, IT_CONTRAST, Place, Program, VISUAL_SEMANTIC, parameters,
    table,
};

/// Tensors of f32 by their names: shapes and values.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Settings of a run on the weights of the fixture of ALBEF, but for the sizes of its encoders.
const SMALL: [&str; 10] = [
    "data.batch_size=4",
    "data.tokenizer=vocab.txt",
    "model.embedding=6",
    "tokens=10",
    "rerank=2",
    "momentum.queue=6",
    "schedule.steps=2",
    "schedule.warmup_steps=0",
    "checkpoints.every=1",
    "init.new=[\"cross_attention\"]",
];

/// The sizes of its encoders.
const SIZES: [&str; 12] = [
    "model.image.image_size=12",
    "model.image.patch_size=4",
    "model.image.width=12",
    "model.image.layers=2",
    "model.image.heads=3",
    "model.bert.vocabulary=30",
    "model.bert.context=10",
    "model.bert.width=12",
    "model.bert.layers=4",
    "model.bert.fusion_layers=2",
    "model.bert.heads=3",
    "model.bert.intermediate=20",
];

const TOWERS: [&str; 4] = ["--init-image", "vit.st", "--init-text", "bert.st"];

/// The weights of a fixture whose names begin with `prefix`, without it.
pub fn weights(fixture: &str, prefix: &str) -> Tensors {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let bytes = std::fs::read(format!("{folder}/{fixture}.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().filter_map(|(name, tensor)| {
        let name = name.strip_prefix("weight.")?.strip_prefix(prefix)?;
        let words = tensor.data().chunks_exact(4);
        let values = words.map(|word| f32::from_le_bytes(word.try_into().unwrap()));
        let shape = tensor.shape().to_vec();
        Some((name.to_string(), (shape, values.collect())))
    });
    tensors.collect()
}

/// Writes a file of safetensors.
pub fn write(file: &Path, tensors: &Tensors) {
    let bytes = tensors.iter().map(|(name, (shape, values))| {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        (name, shape, bytes)
    });
    let bytes: Vec<_> = bytes.collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap();
        (name.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, file).unwrap();
}

/// BERT's special tokens and letters, as many as the fixtures have embeddings.
pub fn vocabulary(place: &Place, size: usize) {
    let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_string);
    let letters = ('a'..='z').map(|letter| letter.to_string());
    let all: Vec<_> = specials.into_iter().chain(letters).take(size).collect();
    place.write("vocab.txt", all.join("\n"));
}

/// A place with an image encoder of timm's, a BERT and its vocabulary.
fn with_towers() -> (Place, [Tensors; 2]) {
    let place = Place::new();
    table(&place, "");
    vocabulary(&place, 30);
    let image = weights("albef/albef", "visual_encoder.");
    let mut text = weights("albef/albef", "text_encoder.");
    text.retain(|name, _| !name.contains("crossattention"));
    write(&place.join("vit.st"), &image);
    write(&place.join("bert.st"), &text);
    (place, [image, text])
}

/// A run in the folder `run` with these options and settings.
fn run(place: &Place, program: Program, options: &[&str], pairs: &[&str]) -> Answer {
    let mut command = place.run(program, ["--output", "run", "--data", "table.csv"]);
    command.args(options);
    command.args(pairs.iter().flat_map(|pair| ["--set", pair]));
    Answer::of(&mut command)
}

/// A run of `albef` from both towers, with these settings over those that fit.
fn from_towers(place: &Place, pairs: &[&str]) -> Answer {
    run(place, ALBEF, &TOWERS, &[&SMALL[..], &SIZES, pairs].concat())
}

/// That a parameter has the values of the tensor that a layout says.
fn assert_is_of(file: &Tensors, key: &Key, path: &str, parameter: &TensorData) {
    let (shape, values) = &file[&key.name];
    let [index, of] = key.part;
    let length = values.len() / of;
    let values = &values[index * length..][..length];
    let found: Vec<f32> = parameter.iter::<f32>().collect();
    let is_linear = parameter.shape().len() == 2 && !key.name.contains("embeddings");
    if !is_linear {
        assert_eq!(found, values, "{path}");
        return;
    }
    let (rows, columns) = (shape[0] / of, shape[1]);
    let transposed = (0..columns).flat_map(|column| {
        let rows = 0..rows;
        rows.map(move |row| values[row * columns + column])
    });
    assert_eq!(found, transposed.collect::<Vec<_>>(), "{path}");
}

#[test]
fn albef_starts_from_an_image_encoder_and_a_bert_with_exactly_their_tensors() {
    let mut count = Count::new("--init-image and --init-text");
    let (place, [image, text]) = with_towers();
    count.taken("both", &from_towers(&place, &[]));
    let start = parameters(&place.join("run/start"));
    let mut found = 0;
    for (path, parameter) in &start {
        let keys = [
            ("model.image.", Layout::Timm, "", &image),
            ("model.bert.", Layout::Bert, "", &text),
            ("model.language_head.", Layout::Bert, "head.", &text),
        ];
        for (part, layout, theirs, file) in keys {
            let Some(rest) = path.strip_prefix(part) else {
                continue;
            };
            let key = layout.key(&format!("{theirs}{rest}"), 2);
            if key.name.contains("crossattention") {
                continue;
            }
            assert_is_of(file, &key, path, parameter);
            found += 1;
        }
    }
    // Queries, keys and values of images are one tensor of the file.
    assert_eq!(found, image.len() + 2 * 2 * 2 + text.len());

    let config = std::fs::read(place.join("run/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let sources = config["init"].as_array().unwrap();
    let parts = sources.iter().map(|source| {
        let run = source["run"].as_str().unwrap();
        let name = Path::new(run).file_name().unwrap();
        (name.to_str().unwrap(), source["path"].as_str().unwrap())
    });
    let expected = [("vit.st", "model.image"), ("bert.st", "model.bert")];
    assert_eq!(parts.collect::<Vec<_>>(), expected);

    // A run that goes on needs the files no more.
    for file in ["vit.st", "bert.st", "vocab.txt"] {
        std::fs::remove_file(place.join(file)).unwrap();
    }
    let mut command = place.run(ALBEF, ["--resume", "run", "--set", "schedule.steps=3"]);
    count.taken("--resume", &Answer::of(&mut command));
    assert!(place.join("run/checkpoints/step-000003").exists());
}

#[test]
fn parts_are_named_by_options_or_by_modules() {
    let (place, _) = with_towers();
    let print = |options: &[&str]| {
        let options = [options, &["--print-config"]].concat();
        let answer = run(&place, ALBEF, &options, &[SMALL[1]]);
        assert!(answer.status.success(), "{}", answer.err);
        answer.out
    };
    let modules = [
        "--init",
        "vit.st:model.image",
        "--init",
        "bert.st:model.bert",
    ];
    assert_eq!(print(&TOWERS), print(&modules));
    // One source alone is no list.
    let one: Value = serde_json::from_str(&print(&TOWERS[..2])).unwrap();
    assert_eq!(one["init"]["path"], "model.image");
    // What was printed is read again.
    place.write("again.json", print(&TOWERS));
    assert_eq!(print(&["--config", "again.json"]), print(&TOWERS));
}

#[test]
fn a_part_takes_the_place_of_a_runs() {
    let mut count = Count::new("a run and a tower");
    let (place, [image, _]) = with_towers();
    let small = [&SMALL[..9], &SIZES].concat();
    count.taken("a run", &run(&place, ALBEF, &[], &small));
    std::fs::rename(place.join("run"), place.join("earlier")).unwrap();
    let both = ["--init", "earlier", "--init-image", "vit.st"];
    count.taken("both", &run(&place, ALBEF, &both, &["schedule.steps=1"]));
    let start = parameters(&place.join("run/start"));
    let earlier = parameters(&place.join("earlier"));
    for (path, parameter) in &start {
        if let Some(rest) = path.strip_prefix("model.image.") {
            assert_is_of(&image, &Layout::Timm.key(rest, 0), path, parameter);
        } else if path.starts_with("model.") {
            assert_eq!(parameter, &earlier[path], "{path}");
        }
    }
}

#[test]
fn towers_that_do_not_fit_are_refused_by_their_settings_and_leave_nothing() {
    let mut count = Count::new("towers that are refused");
    let (place, _) = with_towers();
    let new = "init.new=[]";
    let wide = ["model.image.width=24", "model.bert.width=24"];
    let other = "data.tokenizer=null";
    for (pairs, reasons) in [
        (&[new][..], &["lacks", "cross_attention", "init.new"][..]),
        (&wide, &["does not fit", "--set model.image.width=12"]),
        (
            &["model.image.layers=3"],
            &["init.new", "--set model.image.layers=2"],
        ),
        (
            &["model.image.layers=1"],
            &["init.unused", "--set model.image.layers=2"],
        ),
        (
            &["model.image.patch_size=6"],
            &["does not fit", "--set model.image.patch_size=4"],
        ),
        (
            &["model.image.layout=clip"],
            &["another model", "--set model.image.layout=deit"],
        ),
        (
            &["model.image.activation=quick-gelu"],
            &["another model", "--set model.image.activation=gelu"],
        ),
        (
            &["model.bert.layers=3", "model.bert.fusion_layers=1"],
            &["init.unused", "--set model.bert.layers=4"],
        ),
        (
            &["model.bert.intermediate=24"],
            &["does not fit", "--set model.bert.intermediate=20"],
        ),
        (
            &["model.bert.vocabulary=31"],
            &["the tokenizer of other weights"],
        ),
        (&[other], &["--init bert.st", "no tokenizer.json"]),
    ] {
        let answer = from_towers(&place, pairs);
        for reason in reasons {
            count.refused(&format!("{pairs:?}"), &answer, reason);
        }
        assert!(!place.join("run").exists(), "{pairs:?}");
    }
    // A file beside the weights says how many heads they have.
    place.write("config.json", json!({"num_attention_heads": 3}).to_string());
    let answer = from_towers(&place, &["model.image.heads=4"]);
    count.refused("heads", &answer, "--set model.image.heads=3");
    vocabulary(&place, 29);
    let answer = from_towers(&place, &[]);
    count.refused("a word less", &answer, "the tokenizer has 29 tokens");
    assert!(!place.join("run").exists());
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let mut count = Count::new("options of weights");
    let (place, _) = with_towers();
    for (program, options, reason) in [
        (
            IT_CONTRAST,
            &["--init-image", "vit.st"][..],
            "it-contrast has no encoder that an image encoder's weights could start",
        ),
        (
            VISUAL_SEMANTIC,
            &["--init-text", "bert.st"],
            "visual-semantic has no encoder that a text encoder's weights could start",
        ),
        (ALBEF, &["--init-image", "absent"], "there is no such file"),
        (ALBEF, &["--init-image", "."], "there is no such file"),
        (
            ALBEF,
            &["--init-text", "vit.st"],
            "the layout of ViT (timm), which has no text encoder",
        ),
        (
            ALBEF,
            &["--init-image", "bert.st"],
            "the layout of BERT (Hugging Face), which has no image encoder",
        ),
        (ALBEF, &["--init", "vit.st"], "--init-image vit.st"),
        (CLIP, &["--init", "bert.st"], "no dual encoder"),
        (
            ALBEF,
            &["--init", "a", "--init", "b"],
            "starts all of the model",
        ),
        (
            ALBEF,
            &["--resume", "run", "--init-image", "vit.st"],
            "--resume",
        ),
    ] {
        let answer = run(&place, program, options, &[SMALL[1]]);
        count.refused(&format!("{options:?}"), &answer, reason);
        assert!(!place.join("run").exists(), "{options:?}");
    }
}

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
