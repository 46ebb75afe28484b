//! Towers of a model from files of their own.

use std::path::Path;

use burn::tensor::TensorData;
use burn_contrastive_examples::published::{Key, Layout};
use serde_json::{Value, json};

use super::{SIZES, SMALL, Tensors, run, vocabulary, weights, write};
use crate::program::{
    ALBEF, Answer, CLIP, Count, IT_CONTRAST, Place, Program, RADIOGRAPH, VISUAL_SEMANTIC,
    parameters, studies, table,
};

const TOWERS: [&str; 4] = ["--init-image", "vit.st", "--init-text", "bert.st"];

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
fn a_bert_with_the_norms_of_the_first_files_is_the_same() {
    let mut count = Count::new("a BERT of the first files");
    let (place, [_, text]) = with_towers();
    let old = text.into_iter().map(|(name, tensor)| {
        let name = match name.split_once("LayerNorm.") {
            Some((start, "weight")) => format!("{start}LayerNorm.gamma"),
            Some((start, _)) => format!("{start}LayerNorm.beta"),
            None => name,
        };
        (name, tensor)
    });
    let old: Tensors = old.collect();
    assert!(old.contains_key("cls.predictions.transform.LayerNorm.gamma"));
    count.taken("today's", &from_towers(&place, &[]));
    let expected = parameters(&place.join("run/start"));
    std::fs::remove_dir_all(place.join("run")).unwrap();
    write(&place.join("bert.st"), &old);
    count.taken("the first", &from_towers(&place, &[]));
    assert_eq!(parameters(&place.join("run/start")), expected);
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
fn the_image_encoder_of_a_clip_starts_that_of_albef_and_its_rest_is_left() {
    let mut count = Count::new("a tower of CLIP");
    let (place, _) = with_towers();
    let clip = weights("models/clip_hugging_face", "");
    write(&place.join("clip.st"), &clip);
    let wide = [
        "model.image.width=16",
        "model.image.heads=2",
        "model.image.layout=clip",
        "model.bert.width=16",
        "model.bert.heads=2",
    ];
    let from = |options: &[&str], pairs: &[&str]| {
        let small = [&SMALL[..9], &SIZES, &wide, pairs].concat();
        run(&place, ALBEF, options, &small)
    };
    let tower = ["--init-image", "clip.st"];
    let reason = "--set model.image.activation=quick-gelu";
    count.refused("GELU", &from(&tower, &[]), reason);
    let quick = ["model.image.activation=quick-gelu"];
    count.taken("QuickGELU", &from(&tower, &quick));
    let mut found = 0;
    for (path, parameter) in parameters(&place.join("run/start")) {
        if let Some(rest) = path.strip_prefix("model.image.") {
            let key = Layout::HuggingFaceClip.key(&format!("image.{rest}"), 0);
            assert_is_of(&clip, &key, &path, &parameter);
            found += 1;
        }
    }
    let all = clip.keys().filter(|name| name.starts_with("vision_model."));
    assert_eq!(found, all.count());
    // Its text encoder is no BERT.
    std::fs::remove_dir_all(place.join("run")).unwrap();
    let answer = from(&["--init-text", "clip.st"], &[]);
    count.refused("a text encoder", &answer, "no parameter of the module");
}

/// The sizes of the fixture of torchvision.
const RESNET: [&str; 3] = [
    "model.image.stem=large",
    "model.image.blocks=[2,1]",
    "model.image.image_size=40",
];

/// A place with a residual network of torchvision's, and its weights.
fn with_resnet() -> (Place, Tensors) {
    let place = Place::new();
    table(&place, "");
    studies(&place);
    let file = weights("models/resnet_basic", "");
    write(&place.join("resnet.st"), &file);
    (place, file)
}

/// A run of a program whose image encoder starts from it, with these settings over a small run's.
fn from_resnet(place: &Place, program: Program, data: &str, pairs: &[&str]) -> Answer {
    let words = [
        "--output",
        "run",
        "--init-image",
        "resnet.st",
        "--data",
        data,
    ];
    let mut command = place.small_run(program, &words);
    Answer::of(command.args(pairs.iter().flat_map(|pair| ["--set", pair])))
}

#[test]
fn a_residual_network_of_torchvision_starts_image_encoders() {
    let mut count = Count::new("a residual network of torchvision");
    let (place, file) = with_resnet();
    // Without a base network, which would be trained first.
    let alone = [&RESNET[..], &["base=null", "train_image=false"]].concat();
    for (program, data, path, pairs) in [
        (RADIOGRAPH, "studies.json", "model.image.", &RESNET[..]),
        (VISUAL_SEMANTIC, "table.csv", "image.", &alone),
    ] {
        count.taken(data, &from_resnet(&place, program, data, pairs));
        let start = parameters(&place.join("run/start"));
        let image = start.iter().filter_map(|(name, parameter)| {
            let rest = name.strip_prefix(path)?;
            Some((rest, parameter))
        });
        let image: Vec<_> = image.collect();
        assert_eq!(image.len(), file.len());
        for (rest, parameter) in image {
            let key = Layout::Torchvision.key(rest, 0);
            assert_is_of(&file, &key, rest, parameter);
        }
        std::fs::remove_dir_all(place.join("run")).unwrap();
    }
    let answer = from_resnet(&place, VISUAL_SEMANTIC, "table.csv", &RESNET[1..]);
    count.refused("a small stem", &answer, "--set model.image.stem=large");
    assert!(!place.join("run").exists());
    let answer = from_resnet(&place, RADIOGRAPH, "studies.json", &RESNET[1..]);
    count.refused("a small stem", &answer, "--set model.image.stem=large");
    assert!(!place.join("run").exists());
}

#[test]
fn a_base_network_starts_from_a_residual_network_that_its_first_phase_freezes() {
    let mut count = Count::new("a base network from a residual network");
    let (place, file) = with_resnet();
    let first = [&RESNET[..], &["base.first.train_image=false"]].concat();
    count.taken(
        "base",
        &from_resnet(&place, VISUAL_SEMANTIC, "table.csv", &first),
    );
    let of_base = |run: &str| parameters(&place.join(run))["image.conv1.weight"].clone();
    let [first, second] = ["run/base-first", "run/base-second"].map(of_base);
    let values: Vec<f32> = first.iter().collect();
    assert_eq!(values, file["conv1.weight"].1);
    assert_ne!(first, second);
    assert_eq!(second, of_base("run"));
}
