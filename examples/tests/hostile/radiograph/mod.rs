//! `radiograph`, `radiograph linear` and `radiograph finetune`: settings and runs that do not fit
//! together, labels that say nothing.

mod data;

use std::fs;

use serde_json::{Value, json};

use super::program::{
    Answer, CLIP, Count, FINETUNE, LINEAR, Place, Program, RADIOGRAPH, files, metrics, studies,
    study, table,
};

const STUDIES: &str = "studies.json";

/// A place with studies and a small run of `radiograph` on them.
fn with_radiograph() -> Place {
    let place = Place::new();
    table(&place, "");
    studies(&place);
    place.finished_on(RADIOGRAPH, "radiograph", STUDIES, &[]);
    place
}

/// A program on the list `data`; a classifier from the run of [`with_radiograph`].
fn start_on(place: &Place, program: Program, data: &str, arguments: &[&str]) -> Answer {
    let _ = fs::remove_dir_all(place.join("run"));
    let mut start = vec!["--output", "run", "--data", data];
    if !program.command.is_empty() {
        start.extend(["--init", "radiograph"]);
    }
    let mut command = place.small_run(program, &start);
    Answer::of(command.args(arguments))
}

fn start(place: &Place, program: Program, pairs: &[&str]) -> Answer {
    let sets: Vec<_> = pairs.iter().flat_map(|pair| ["--set", pair]).collect();
    start_on(place, program, STUDIES, &sets)
}

fn resume(place: &Place, program: Program, run: &str, pairs: &[&str]) -> Answer {
    let sets = pairs.iter().flat_map(|pair| ["--set", pair]);
    Answer::of(&mut place.run(program, ["--resume", run].into_iter().chain(sets)))
}

/// Settings that are refused.
const OF_RADIOGRAPH: [(&str, &str); 19] = [
    ("model.bert.fusion_layers=1", "fusion_layers = 1 must be 0"),
    ("model.bert.heads=3", "must be a multiple of bert.heads = 3"),
    ("model.bert.vocabulary=10", "model.bert.vocabulary"),
    ("model.embedding=0", "embedding = 0 must be in"),
    ("model.image.blocks=[]", "image.blocks has 0 stages"),
    (
        "model.image={\"blocks\": [1000, 1000], \"width\": 4096}",
        "parameters",
    ),
    ("model.image.width=5000", "image.width = 5000"),
    ("model.image.image_size=4", "leaves one place"),
    ("model.pooling=mean", "model.pooling: unknown variant"),
    ("tokens=13", "tokens = 13 must be in 2..=model.bert.context"),
    ("tokens=1", "tokens = 1 must be in 2.."),
    ("objective=srcl", "objective srcl needs"),
    ("objective=recco", "did you mean `reco`?"),
    ("objective.lambda=nan", "objective.lambda"),
    (
        "data.batch_size=100",
        "split train has 8 studies, fewer than one batch",
    ),
    ("data.tokenizer=absent", "absent"),
    ("findings.noise=2", "noise is 2"),
    ("findings.candidates=0", "candidates is 0"),
    ("labels=1", "there is no setting labels"),
];

/// Those of the classifiers.
const OF_CLASSIFIERS: [(&str, &str); 11] = [
    ("labels=0", "labels = 0 must be in (0, 1]"),
    ("labels=-1", "labels = -1 must be in (0, 1]"),
    ("labels=1.01", "labels = 1.01 must be in (0, 1]"),
    ("labels=null", "labels: invalid type: null"),
    ("classes=0", "classes = 0 must be in 1..=100000"),
    (
        "classes=3",
        "studies.json names 2 classes, and the model has 3: set classes=2",
    ),
    ("trained=tail", "trained: unknown variant"),
    ("image.width=8", "there and [8,"),
    ("vocabulary=5", "set vocabulary="),
    ("model.embedding=4", "there is no setting model"),
    ("objective=reco", "there is no setting objective"),
];

#[test]
fn settings_that_do_not_fit_together_are_refused_and_leave_nothing() {
    let mut count = Count::new("settings of radiograph");
    let place = with_radiograph();
    for (program, own) in [
        (RADIOGRAPH, &OF_RADIOGRAPH[..]),
        (LINEAR, &OF_CLASSIFIERS),
        (FINETUNE, &OF_CLASSIFIERS),
    ] {
        for (pair, reason) in own {
            count.refused(pair, &start(&place, program, &[pair]), reason);
            assert!(!place.join("run").exists(), "{pair}");
        }
    }
    let places = start(&place, FINETUNE, &["image.image_size=4"]);
    count.refused("one place", &places, "leaves one place");
    // Frozen norms need no second one.
    count.taken("one place", &start(&place, LINEAR, &["image.image_size=4"]));
    // A shard of one image.
    for program in [RADIOGRAPH, FINETUNE] {
        count.taken(
            "shards of one",
            &start(&place, program, &["sharding.pairs=1"]),
        );
    }
}

#[test]
fn runs_of_others_are_refused_and_stay_as_they_were() {
    let mut count = Count::new("runs of other programs than radiograph");
    let place = with_radiograph();
    place.finished(CLIP, "clip", &[]);
    for program in [LINEAR, FINETUNE] {
        count.taken("whole", &start(&place, program, &[]));
        fs::rename(place.join("run"), place.join(program.command[0])).unwrap();
    }
    let from = |program: Program, run: &str| {
        let start = ["--output", "run", "--data", STUDIES, "--init", run];
        Answer::of(&mut place.small_run(program, &start))
    };
    for name in ["config.json", "tokenizer.json"] {
        place.write(
            &format!("bare/{name}"),
            fs::read(place.join("radiograph").join(name)).unwrap(),
        );
    }
    for (run, reason) in [
        ("clip", "that is no run of `radiograph`"),
        ("linear", "that is no run of `radiograph`"),
        ("finetune", "that is no run of `radiograph`"),
        // Not one step is finished.
        ("bare", "bare is no run with a checkpoint"),
        ("absent", "no run in absent"),
        ("studies.json", "no run in studies.json"),
        ("radiograph:model.nothing", "has no module model.nothing"),
    ] {
        for program in [LINEAR, FINETUNE] {
            count.refused(run, &from(program, run), reason);
            assert!(!place.join("run").exists(), "{run}");
        }
    }
    let reason = "it is no run of radiograph";
    count.refused("linear", &from(RADIOGRAPH, "linear"), reason);
    let model = place.join("radiograph/checkpoints/step-000002/model.bpk");
    let whole = fs::read(&model).unwrap();
    for damaged in [&whole[..whole.len() / 2], b""] {
        fs::write(&model, damaged).unwrap();
        for program in [RADIOGRAPH, LINEAR, FINETUNE] {
            count.refused(
                "damaged",
                &from(program, "radiograph"),
                "model.bpk is damaged",
            );
            assert!(!place.join("run").exists());
        }
    }
    for (program, run) in [
        (RADIOGRAPH, "linear"),
        (LINEAR, "radiograph"),
        (CLIP, "radiograph"),
    ] {
        let before = files(&place.join(run));
        let reason = "config.json is not a configuration of this program";
        count.refused(run, &resume(&place, program, run, &[]), reason);
        assert!(files(&place.join(run)) == before, "{run} was changed");
    }
}

#[test]
fn what_a_run_was_trained_with_stays() {
    let mut count = Count::new("changes on resume of radiograph");
    let place = with_radiograph();
    let radiograph = [
        "objective=info-nce",
        "model.pooling=token",
        "tokens=11",
        "model.embedding=5",
    ];
    let classifier = ["labels=0.5", "trained=all", "classes=3", "tokens=11"];
    for (program, pairs) in [(RADIOGRAPH, radiograph), (LINEAR, classifier)] {
        count.taken("whole", &start(&place, program, &[]));
        let before = files(&place.join("run"));
        for pair in pairs {
            count.refused(
                pair,
                &resume(&place, program, "run", &[pair]),
                pair.split('=').next().unwrap(),
            );
            assert!(
                files(&place.join("run")) == before,
                "{pair} changed the run"
            );
        }
        let list = fs::read_to_string(place.join(STUDIES)).unwrap();
        // Of a training study.
        place.write(STUDIES, list.replacen("\"even\":true", "\"even\":false", 1));
        let other = resume(&place, program, "run", &["schedule.steps=3"]);
        count.refused("other labels", &other, "not those");
        place.write(STUDIES, list);
        count.taken(
            "mended",
            &resume(&place, program, "run", &["schedule.steps=3"]),
        );
    }
}

/// Studies with these labels.
fn labelled(place: &Place, labels: &dyn Fn(usize) -> Value) {
    let rows = (0..12).map(|index| {
        let mut row = study(index);
        row["labels"] = labels(index);
        row
    });
    let file = json!({"classes": ["third", "even"], "studies": rows.collect::<Vec<_>>()});
    place.write("studies.json", file.to_string());
}

/// A class of which the held-out images are all, or none, has no area under a curve.
#[test]
fn classes_of_one_kind_are_trained_on_and_have_no_score() {
    let mut count = Count::new("labels");
    let place = with_radiograph();
    for (name, labels, areas) in [
        (
            "always",
            &(|_| json!({"third": true, "even": true})) as &dyn Fn(usize) -> _,
            [false; 3],
        ),
        ("never", &|_| json!({}), [false; 3]),
        (
            "unknown",
            &|index| match index {
                0 => json!({}),
                _ => json!({"third": null, "even": null}),
            },
            [false; 3],
        ),
        (
            "one class",
            &|index| json!({"even": index % 2 == 0}),
            [false, true, true],
        ),
    ] {
        labelled(&place, labels);
        for program in [LINEAR, FINETUNE] {
            let answer = start(&place, program, &[]);
            count.taken(name, &answer);
            assert!(!answer.out.contains("NaN"), "{name}: {}", answer.out);
            let rows = &metrics(&place.join("run"))["tables"][0]["rows"];
            let area = |row: usize| rows[row]["numbers"].as_array().unwrap().last().unwrap();
            assert_eq!([0, 1, 2].map(|row| area(row).is_number()), areas, "{name}");
        }
    }
}

#[test]
fn labels_that_are_too_few_to_learn_from_are_refused() {
    let mut count = Count::new("labels that are too few");
    let place = with_radiograph();
    labelled(&place, &|_| json!({"third": null, "even": null}));
    for program in [LINEAR, FINETUNE] {
        let answer = start(&place, program, &[]);
        count.refused("nothing known", &answer, "there is nothing to learn");
        assert!(!place.join("run").exists());
    }
    // A share that leaves one image, or two.
    labelled(&place, &|_| json!({"even": true}));
    let answer = start(&place, LINEAR, &["labels=1e-9"]);
    count.refused(
        "one image",
        &answer,
        "1 image with labels in the split train",
    );
    assert!(!place.join("run").exists());
    let answer = start(&place, LINEAR, &["labels=0.13"]);
    count.taken("two images", &answer);
    assert!(
        answer.out.contains("2 images of 2 training studies"),
        "{}",
        answer.out
    );
}
