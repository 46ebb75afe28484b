//! `visual-semantic`: settings that do not fit together, files of features and of word vectors,
//! base networks of another kind, changes on resume.

use std::fs;
use std::process::Command;

use super::program::{Answer, CLIP, Count, Place, VISUAL_SEMANTIC, files, table};
use super::rows::{Bad, Column, Rows, bad, damaged, misnamed};

fn start(place: &Place, pairs: &[&str]) -> Answer {
    let _ = fs::remove_dir_all(place.join("run"));
    let arguments = ["--output", "run", "--data", "table.csv"];
    let mut command = place.small_run(VISUAL_SEMANTIC, &arguments);
    command.args(pairs.iter().flat_map(|pair| ["--set", pair]));
    Answer::of(&mut command)
}

fn resume(place: &Place, run: &str, pairs: &[&str]) -> Answer {
    let sets = pairs.iter().flat_map(|pair| ["--set", pair]);
    let arguments = ["--resume", run].into_iter().chain(sets);
    Answer::of(&mut place.run(VISUAL_SEMANTIC, arguments))
}

#[test]
fn settings_that_do_not_fit_together_are_refused_and_leave_nothing() {
    let mut count = Count::new("settings of visual-semantic");
    let place = Place::new();
    table(&place, "");
    for (pair, reason) in [
        ("model.embedding=0", "embedding = 0 must be in"),
        ("model.heads.hidden=0", "heads.hidden = 0 must be in"),
        ("model.text.words=0", "text.words = 0 must be in"),
        ("model.image.blocks=[]", "image.blocks has 0 stages"),
        ("model.image.blocks=[1,1,1,1]", "leaves one place"),
        (
            "base.first.batch_size=1",
            "base.first: batch_size = 1 must be at least 2",
        ),
        (
            "base.second.learning_rate=0",
            "base.second: learning_rate = 0 must be positive",
        ),
        (
            "base.second.schedule.steps=0",
            "base.second: schedule.steps must be at least 1",
        ),
        ("base.objective=srcl", "base: objective srcl needs"),
        ("objective=info-cmr", "objective info-cmr needs"),
        (
            "model=huge",
            "there is no preset `huge`; there are tiny, base",
        ),
        ("model.image=resnet", "there is no image encoder `resnet`"),
        ("base.secund=null", "did you mean base.second?"),
        ("train_image=1", "train_image: expected"),
        ("model.text=null", "model.text is a group of settings"),
        ("model.text.vocabulary=10", "model.text.vocabulary"),
    ] {
        count.refused(pair, &start(&place, &[pair]), reason);
        assert!(!place.join("run").exists(), "{pair}");
    }
    count.taken("none of them", &start(&place, &[]));
    assert!(place.join("run/base-second/report.html").exists());
}

#[test]
fn word_vectors_that_cannot_be_read_are_refused_and_leave_nothing() {
    let mut count = Count::new("word vectors");
    let place = Place::new();
    table(&place, "");
    for (content, reason) in [
        (&b""[..], "line 1: there is no vector"),
        (b"dog 1 2 3\n", "model.text.words = 4"),
        (b"9 300\n", "the vectors are of 300 numbers"),
        (
            b"dog 1 2 3 4\ncat 1 2 3 NaN\n",
            "line 2: NaN is not a finite number",
        ),
        (
            b"dog 1 2 3 4\n\xf0\x28 1 2 3 4\n",
            "line 2: it is not UTF-8",
        ),
        (b"unheard 1 2 3 4\n", "none of its words"),
        (
            b"picture 1 2 3 4\ncat 1 2 3\n",
            "line 2: it has a vector of 3 numbers",
        ),
        (b"picture 1 2 3 4 5\n", "it has a vector of 5 numbers"),
        (b"picture 1 2 3 4\ncat\n", "line 2: it has a vector of 0"),
        (b"picture 1 2 3 1e99\n", "line 1: 1e99 is not a finite"),
        (b"picture 1 2 3 x\n", "line 1: \"x\" is not a number"),
        (b"9 4\npicture 1 2 3 4\n", "line 1 says that there are 9"),
        // As word2vec writes it without text.
        (
            b"1 4\npicture \0\0\x80?\xff\xff\x80?\0\0\x80?\0\0\x80?",
            "line 2: it is not UTF-8",
        ),
        (&[b'x'; 5 << 20], "line 1: it is longer than 4 MiB"),
    ] {
        fs::write(place.join("v.txt"), content).unwrap();
        // Read in the first phase of a base network, and where there is none.
        for more in [&[][..], &["base=null", "train_image=true"]] {
            let answer = start(&place, &[&["model.text.vectors=v.txt"], more].concat());
            count.refused(reason, &answer, reason);
            assert!(answer.err.contains("model.text.vectors"), "{}", answer.err);
            assert!(!place.join("run").exists(), "{reason}");
        }
    }
    let made = Command::new("mkfifo").arg(place.join("pipe.txt")).status();
    assert!(made.unwrap().success());
    for path in ["absent.txt", ".", "pipe.txt", "/dev/zero"] {
        let answer = start(&place, &[&format!("model.text.vectors={path}")]);
        count.refused(path, &answer, "model.text.vectors");
        assert!(!place.join("run").exists(), "{path}");
    }
    // The first of two vectors of a word counts; words with blanks in them belong to no token.
    place.write(
        "v.txt",
        "picture 1 2 3 4\npicture 5 6 7 8\nat home 1 2 3 4\n",
    );
    count.taken("twice", &start(&place, &["model.text.vectors=v.txt"]));
}

#[test]
fn what_a_run_was_trained_with_stays() {
    let mut count = Count::new("changes on resume of visual-semantic");
    let place = Place::new();
    table(&place, "");
    place.finished(VISUAL_SEMANTIC, "run", &[]);
    let before = files(&place.join("run"));
    for (pair, reason) in [
        ("train_image=true", "train_image = false"),
        ("base.first.learning_rate=1", "it cannot go on with 1"),
        ("base=null", "cannot go on with"),
        ("objective=con-vse", "objective"),
        ("model.heads.output=5", "model.heads.output = 4"),
    ] {
        count.refused(pair, &resume(&place, "run", &[pair]), reason);
        let after = files(&place.join("run"));
        assert!(after == before, "{pair} changed the run");
    }
    let more = resume(&place, "run", &["schedule.steps=3"]);
    count.taken("one more step", &more);
}

#[test]
fn a_base_network_that_does_not_fit_is_refused_and_leaves_nothing() {
    let mut count = Count::new("base networks");
    let place = Place::new();
    table(&place, "");
    place.finished(CLIP, "clip", &[]);
    place.finished(VISUAL_SEMANTIC, "good", &["base.second=null"]);
    fs::create_dir(place.join("empty")).unwrap();
    let on = |run: &str| start(&place, &[&format!("base.run={run}")]);
    for (run, reason) in [
        ("absent", "absent"),
        ("empty", "empty"),
        ("table.csv", "table.csv"),
        ("clip", "is not a configuration of this program"),
        ("good", "good has heads"),
    ] {
        let answer = on(run);
        count.refused(run, &answer, reason);
        assert!(answer.err.contains("base.run"), "{run}: {}", answer.err);
        assert!(!place.join("run").exists(), "{run}");
    }
    count.taken("good", &on("good/base-first"));
    assert!(!place.join("run/base-first").exists());
}

#[test]
fn base_networks_of_another_shape_or_half_trained_are_refused_and_leave_nothing() {
    let mut count = Count::new("base networks that do not fit");
    let place = Place::new();
    table(&place, "");
    place.finished(VISUAL_SEMANTIC, "good", &["base.second=null"]);
    let on = |pairs: &[&str]| start(&place, &[&["base.run=good/base-first"], pairs].concat());
    for (pairs, reason) in [
        (
            &["model.image.width=8"][..],
            "image.conv1.weight is [4, 3, 3, 3] there and [8",
        ),
        (&["model.image.blocks=[2,1]"], "lacks image.stages.0.1."),
        (&["model.text.width=7"], "text."),
        (&["model.embedding=7"], "image_projection.weight is"),
        (&["model.text.vocabulary=400"], "text.words.weight is"),
        (&["model.text.context=11"], ""),
    ] {
        let answer = on(pairs);
        if reason.is_empty() {
            count.taken("shorter captions", &answer);
            continue;
        }
        count.refused(reason, &answer, reason);
        assert!(answer.err.contains("base.run"), "{}", answer.err);
        assert!(!place.join("run").exists(), "{reason}");
    }
    let model = place.join("good/base-first/checkpoints/step-000002/model.bpk");
    let whole = fs::read(&model).unwrap();
    for damaged in [&whole[..whole.len() / 2], b""] {
        fs::write(&model, damaged).unwrap();
        count.refused("damaged", &on(&[]), "model.bpk is damaged");
        assert!(!place.join("run").exists());
    }
    fs::write(&model, whole).unwrap();
    fs::remove_file(place.join("good/base-first/metrics.json")).unwrap();
    count.refused("unfinished", &on(&[]), "good/base-first is not finished");
    assert!(!place.join("run").exists());
    fs::remove_dir_all(place.join("good/base-first/checkpoints")).unwrap();
    place.write("good/base-first/metrics.json", "{}");
    count.refused("no step", &on(&[]), "is no run with a checkpoint");
    assert!(!place.join("run").exists());
}

/// Features of three numbers of the images of the table.
fn features() -> Rows {
    Rows::of(
        12,
        vec![("features", Column::floats(&[12, 3], |at| at as f32 / 7.0))],
    )
}

/// The settings of a run on the file of features.
const ON_FEATURES: [&str; 4] = [
    "features.file=f.safetensors",
    "features.width=3",
    "base.first.train_image=false",
    "base.second=null",
];

/// Features with one number in the place of another.
fn changed(at: usize, number: f32) -> Rows {
    let cell = |index| if index == at { number } else { 1.0 };
    features().with("features", Column::floats(&[12, 3], cell))
}

/// Files that are refused.
fn bad_features() -> Bad {
    let floats =
        |shape: &[usize]| features().with("features", Column::floats(shape, |at| at as f32));
    let mut long = features();
    long.tensors[0].1.dtype = "F64";
    long.tensors[0].1.bytes.resize(12 * 3 * 8, 0);
    let less = Rows::of(11, floats(&[11, 3]).tensors);
    bad([
        (
            "no tensor",
            features().without("features"),
            "it has no tensor `features`",
        ),
        ("an image less", less, "it has no row for 11.png"),
        ("rank", floats(&[12, 3, 1]), "it must have 2 dimensions"),
        (
            "nothing",
            floats(&[12, 0]),
            "it needs an image and a number",
        ),
        ("other width", floats(&[12, 4]), "set features.width=4"),
        (
            "dtype",
            long,
            "`features` is F64, it must be one of [F32, F16]",
        ),
        (
            "NaN",
            changed(4, f32::NAN),
            "row 1: `features` holds NaN at 1",
        ),
        (
            "infinite",
            changed(35, f32::INFINITY),
            "row 11: `features` holds inf at 2",
        ),
    ])
}

#[test]
fn files_of_features_that_do_not_fit_are_refused_and_leave_nothing() {
    let mut count = Count::new("files of features");
    let place = Place::new();
    table(&place, "");
    let whole = features();
    let files = [bad_features(), misnamed(&whole), damaged(&whole.bytes())].concat();
    for (name, bytes, reason) in files {
        place.write("f.safetensors", bytes);
        let answer = start(&place, &ON_FEATURES);
        count.refused(name, &answer, reason);
        for named in ["features.file", "f.safetensors"] {
            assert!(answer.err.contains(named), "{name}: {}", answer.err);
        }
        assert!(!place.join("run").exists(), "{name}");
    }
    fs::remove_file(place.join("f.safetensors")).unwrap();
    let made = Command::new("mkfifo").arg(place.join("pipe")).status();
    assert!(made.unwrap().success());
    for path in ["absent", ".", "pipe", "/dev/zero"] {
        let file = format!("features.file={path}");
        let answer = start(&place, &[&[&file[..]], &ON_FEATURES[1..]].concat());
        count.refused(path, &answer, "features.file");
        assert!(!place.join("run").exists(), "{path}");
    }
    place.write("f.safetensors", features().bytes());
    for pair in ["train_image=true", "base.first.train_image=true"] {
        let answer = start(&place, &[&ON_FEATURES[..], &[pair]].concat());
        count.refused(pair, &answer, "leaves no image encoder to train");
        assert!(!place.join("run").exists(), "{pair}");
    }
    // Rows of other images are not looked at.
    let more = Rows::of(
        13,
        vec![(
            "features",
            Column::floats(&[13, 3], |at| if at < 36 { 1.0 } else { f32::NAN }),
        )],
    );
    for (name, rows) in [
        ("whole", features()),
        ("one more", more),
        ("zeros", changed(0, 0.0)),
    ] {
        place.write("f.safetensors", rows.bytes());
        count.taken(name, &start(&place, &ON_FEATURES));
    }
}
