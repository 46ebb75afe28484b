//! `it-contrast`: files of regions, runs that make them, settings that do not fit together.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::program::{ALBEF, Answer, CLIP, Count, IT_CONTRAST, Place, files, table};
use super::rows::{Bad, Column, Rows, bad, damaged, misnamed};

fn start(place: &Place, pairs: &[&str]) -> Answer {
    let _ = fs::remove_dir_all(place.join("run"));
    let arguments = ["--output", "run", "--data", "table.csv"];
    let mut command = place.small_run(IT_CONTRAST, &arguments);
    command.args(pairs.iter().flat_map(|pair| ["--set", pair]));
    Answer::of(&mut command)
}

fn resume(place: &Place, run: &str, pairs: &[&str]) -> Answer {
    let sets = pairs.iter().flat_map(|pair| ["--set", pair]);
    let arguments = ["--resume", run].into_iter().chain(sets);
    Answer::of(&mut place.run(IT_CONTRAST, arguments))
}

/// Two regions at most of the images of the table, of features of four numbers.
fn regions() -> Rows {
    let counts: Vec<i64> = (0..12).map(|image| 1 + image % 2).collect();
    let side = |at: usize| [0.1, 0.2, 0.5, 0.9][at % 4];
    Rows::of(
        12,
        vec![
            (
                "features",
                Column::floats(&[12, 2, 4], |at| at as f32 / 7.0),
            ),
            ("boxes", Column::floats(&[12, 2, 4], side)),
            ("count", Column::integers(&counts)),
        ],
    )
}

/// With one number of a tensor in the place of another.
fn changed(name: &str, at: usize, number: f32) -> Rows {
    let mut rows = regions();
    let place = rows.tensors.iter_mut().find(|(own, _)| *own == name);
    place.unwrap().1.bytes[4 * at..][..4].copy_from_slice(&number.to_le_bytes());
    rows
}

/// Files that are refused for what they hold.
fn bad_values() -> Bad {
    let counts = |first: i64| {
        let counts = [&[first][..], &[1; 11]].concat();
        regions().with("count", Column::integers(&counts))
    };
    bad([
        (
            "no region",
            counts(0),
            "`count` of 00.png is 0; it must lie in 1..=2",
        ),
        ("a negative count", counts(-1), "`count` of 00.png is -1"),
        ("too many", counts(3), "`count` of 00.png is 3"),
        ("far too many", counts(i64::MAX), "is 9223372036854775807"),
        (
            "NaN",
            changed("features", 9, f32::NAN),
            "row 1: `features` holds NaN in region 0",
        ),
        (
            "infinite",
            changed("features", 95, f32::INFINITY),
            "holds inf in region 1",
        ),
        (
            "inverted",
            changed("boxes", 0, 0.6),
            "row 0: the box of region 0 is [0.6, 0.2, 0.5,",
        ),
        (
            "flat",
            changed("boxes", 1, 0.9),
            "row 0: the box of region 0",
        ),
        (
            "outside",
            changed("boxes", 90, 1.01),
            "row 11: the box of region 0",
        ),
        (
            "below",
            changed("boxes", 92, -0.1),
            "row 11: the box of region 1",
        ),
        (
            "box of NaN",
            changed("boxes", 0, f32::NAN),
            "row 0: the box of region 0",
        ),
    ])
}

/// Files that are refused for the tensors that they have.
fn bad_tensors() -> Bad {
    let floats = |name: &str, shape: &[usize]| regions().with(name, Column::floats(shape, |_| 0.5));
    let features = |shape: &[usize]| floats("features", shape);
    let mut halves = regions();
    halves.tensors[1].1.dtype = "F16";
    halves.tensors[1].1.bytes.truncate(12 * 2 * 4 * 2);
    let fewer = regions().with("count", Column::integers(&[1; 11]));
    let nothing = "it needs an image, a region and a number";
    bad([
        (
            "no features",
            regions().without("features"),
            "it has no tensor `features`",
        ),
        (
            "no boxes",
            regions().without("boxes"),
            "it has no tensor `boxes`",
        ),
        (
            "no count",
            regions().without("count"),
            "it has no tensor `count`",
        ),
        ("rank", features(&[24, 4]), "it must have 3 dimensions"),
        ("other width", features(&[12, 2, 5]), "set model.feature=5"),
        ("no number", features(&[12, 2, 0]), nothing),
        ("no room", features(&[12, 0, 4]), nothing),
        (
            "sides",
            floats("boxes", &[12, 2, 5]),
            "`boxes` has shape [12, 2, 5], it must be",
        ),
        (
            "fewer boxes",
            floats("boxes", &[12, 1, 4]),
            "`boxes` has shape [12, 1, 4]",
        ),
        ("boxes of halves", halves, "`boxes` is F16"),
        ("a count less", fewer, "`count` has shape [11]"),
        ("counts of floats", floats("count", &[12]), "`count` is F32"),
    ])
}

#[test]
fn files_of_regions_that_do_not_fit_are_refused_and_leave_nothing() {
    let mut count = Count::new("files of regions");
    let place = Place::new();
    table(&place, "");
    let whole = regions();
    let rest = [misnamed(&whole), damaged(&whole.bytes())].concat();
    for (name, bytes, reason) in [bad_values(), bad_tensors(), rest].concat() {
        place.write("r.safetensors", bytes);
        let answer = start(&place, &["regions.file=r.safetensors"]);
        count.refused(name, &answer, reason);
        for named in ["regions.file", "r.safetensors"] {
            assert!(answer.err.contains(named), "{name}: {}", answer.err);
        }
        assert!(!place.join("run").exists(), "{name}");
    }
    let made = Command::new("mkfifo").arg(place.join("pipe")).status();
    assert!(made.unwrap().success());
    for path in ["absent", ".", "pipe", "/dev/zero"] {
        let answer = start(&place, &[&format!("regions.file={path}")]);
        count.refused(path, &answer, "regions.file");
        assert!(!place.join("run").exists(), "{path}");
    }
    // What stands behind the last region of an image is not read.
    let behind = changed("features", 4, f32::NAN);
    for (name, rows) in [("whole", regions()), ("behind", behind)] {
        place.write("r.safetensors", rows.bytes());
        let answer = start(&place, &["regions.file=r.safetensors"]);
        count.taken(name, &answer);
        assert!(!place.join("run/clip").exists());
    }
}

/// [`regions`] with what each shows.
fn tagged(classes: Column) -> Rows {
    let mut rows = regions();
    rows.tensors.push(("class", classes));
    rows.listed("classes", json!(["picture", "number"]))
}

/// What the regions of the table show, the second of the last image being of this class.
fn classes(last: i64) -> Column {
    let mut classes = Column::integers(&[&[1; 23][..], &[last]].concat());
    classes.shape = vec![12, 2];
    classes
}

/// Files that are refused where what their regions show is read.
fn bad_classes() -> Bad {
    let listed = |list: Value| tagged(classes(0)).listed("classes", list);
    let mut flat = classes(0);
    flat.shape = vec![24];
    let floats = tagged(Column::floats(&[12, 2], |_| 1.0));
    bad([
        (
            "none",
            regions(),
            "it has no `class`, which says what each region shows: set tags=false",
        ),
        (
            "rank",
            tagged(flat),
            "`class` has shape [24], it must have 2 dimensions",
        ),
        ("floats", floats, "`class` is F32"),
        (
            "too large",
            tagged(classes(2)),
            "row 11: `class` of region 1 is 2; it must lie in 0..=1",
        ),
        (
            "negative",
            tagged(classes(-1)),
            "row 11: `class` of region 1 is -1",
        ),
        (
            "far",
            tagged(classes(i64::MIN)),
            "row 11: `class` of region 1 is -9223372036854775808",
        ),
        (
            "no list",
            tagged(classes(0)).listed("classes", None),
            "have no `classes`",
        ),
        (
            "no array",
            listed(json!({"picture": 0})),
            "no JSON array of names of classes",
        ),
        (
            "numbers",
            listed(json!([1, 2])),
            "no JSON array of names of classes",
        ),
        (
            "empty",
            listed(json!([])),
            "must name classes, none of them blank",
        ),
        (
            "blank",
            listed(json!(["picture", "\t"])),
            "must name classes, none of them blank",
        ),
    ])
}

#[test]
fn classes_of_regions_that_do_not_fit_are_refused_where_they_are_read() {
    let mut count = Count::new("classes of regions");
    let place = Place::new();
    table(&place, "");
    let file = ["regions.file=r.safetensors", "tags=true"];
    for (name, bytes, reason) in bad_classes() {
        place.write("r.safetensors", bytes);
        let answer = start(&place, &file);
        count.refused(name, &answer, reason);
        assert!(
            answer.err.contains("regions.file: "),
            "{name}: {}",
            answer.err
        );
        assert!(!place.join("run").exists(), "{name}");
    }
    let listed = |list: Value| tagged(classes(0)).listed("classes", list);
    let long = json!(["picture", "青 ".repeat(100_000)]);
    for (name, rows) in [("whole", tagged(classes(0))), ("long", listed(long))] {
        place.write("r.safetensors", rows.bytes());
        count.taken(name, &start(&place, &file));
    }
    // Without an object that is known, and without a file.
    let reason = "says what each region shows, or tags=false";
    count.refused("made", &start(&place, &["tags=true"]), reason);
    assert!(!place.join("run").exists());
}

#[test]
fn settings_that_do_not_fit_together_are_refused_and_leave_nothing() {
    let mut count = Count::new("settings of it-contrast");
    let place = Place::new();
    table(&place, "");
    for (pair, reason) in [
        ("model.feature=0", "model: feature = 0 must be in"),
        (
            "model.feature=5",
            "must be regions.tower.model.embedding = 4",
        ),
        ("model.bert.fusion_layers=1", "fusion_layers = 1 must be 0"),
        ("model.bert.vocabulary=10", "model.bert.vocabulary"),
        ("tokens=13", "tokens = 13 must be in 2..=model.bert.context"),
        ("negatives.clusters=0", "clusters"),
        ("negatives.sigma=0", "sigma"),
        ("negatives.noise=0", "negatives.noise = 0 must be in"),
        ("negatives.noise=10000000", "must be in 1..=1000000"),
        (
            "regions.boxes.per_image=0",
            "per_image = 0 must be in 1..=1000",
        ),
        ("regions.boxes.jitter=2", "jitter = 2 must be in [0, 1]"),
        (
            "regions.tower.steps=0",
            "regions.tower.steps must be at least 1",
        ),
        (
            "regions.tower.batch_size=0",
            "regions.tower.batch_size must be at least",
        ),
        ("regions.tower.batch_size=100", "fewer than one batch"),
        ("regions.tower.model.image.patch_size=7", "patch_size"),
        ("data.batch_size=100", "fewer than one batch"),
        (
            "similarity=late-interaction",
            "a synthesised negative stands for one embedding",
        ),
        ("similarity=cosine", "similarity: unknown variant"),
        ("ids=caption", "ids: unknown variant"),
        (
            "objective=vse-plus-plus",
            "set synthesis=false and noise=false",
        ),
        ("regions.flie=x", "did you mean regions.file?"),
        ("model=huge", "there are tiny, base"),
    ] {
        count.refused(pair, &start(&place, &[pair]), reason);
        assert!(!place.join("run").exists(), "{pair}");
    }
    // More clusters than a batch has pairs.
    count.taken("clusters", &start(&place, &["negatives.clusters=1000"]));
    assert!(place.join("run/clip/report.html").exists());
}

#[test]
fn runs_without_a_tower_are_refused_and_leave_nothing() {
    let mut count = Count::new("runs whose tower makes regions");
    let place = Place::new();
    table(&place, "");
    place.finished(CLIP, "clip", &[]);
    place.finished(CLIP, "wide", &["model.embedding=8"]);
    place.finished(ALBEF, "albef", &[]);
    place.write(
        "bare/config.json",
        fs::read(place.join("clip/config.json")).unwrap(),
    );
    fs::create_dir(place.join("empty")).unwrap();
    place.finished(IT_CONTRAST, "own", &["regions.run=clip"]);
    let on = |run: &str| start(&place, &[&format!("regions.run={run}")]);
    for (run, reason) in [
        ("absent", "absent: no run of clip"),
        ("empty", "empty: no run of clip"),
        ("table.csv", "table.csv: no run of clip"),
        ("albef", "albef: no run of clip"),
        ("own", "own: no run of clip"),
        ("bare", "bare is no run with a checkpoint"),
        (
            "wide",
            "its features are 8 wide and the model reads 4: set model.feature=8",
        ),
    ] {
        let answer = on(run);
        count.refused(run, &answer, reason);
        assert!(answer.err.contains("regions.run"), "{run}: {}", answer.err);
        assert!(!place.join("run").exists(), "{run}");
    }
    let model = place.join("clip/checkpoints/step-000002/model.bpk");
    let whole = fs::read(&model).unwrap();
    for damaged in [&whole[..whole.len() / 2], b""] {
        fs::write(&model, damaged).unwrap();
        count.refused("damaged", &on("clip"), "model.bpk is damaged");
        assert!(!place.join("run").exists());
    }
}

#[test]
fn regions_that_a_run_has_made_are_looked_at_when_it_goes_on() {
    let mut count = Count::new("regions of a run");
    let place = Place::new();
    table(&place, "");
    place.finished(IT_CONTRAST, "own", &[]);
    let before = files(&place.join("own"));
    for pair in [
        "model.feature=5",
        "negatives.noise=4",
        "synthesis=false",
        "tokens=11",
    ] {
        let key = pair.split('=').next().unwrap();
        count.refused(pair, &resume(&place, "own", &[pair]), key);
        assert!(
            files(&place.join("own")) == before,
            "{pair} changed the run"
        );
    }
    let file = place.join("own/regions.safetensors");
    let made = fs::read(&file).unwrap();
    for (name, bytes, reason) in damaged(&made) {
        fs::write(&file, bytes).unwrap();
        count.refused(name, &resume(&place, "own", &["schedule.steps=3"]), reason);
    }
    fs::write(&file, made).unwrap();
    count.taken("mended", &resume(&place, "own", &["schedule.steps=3"]));
}
