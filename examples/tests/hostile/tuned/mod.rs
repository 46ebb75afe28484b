//! `albef vqa` and `albef nlvr2`: settings and runs that do not fit together.

mod data;

use std::fs;
use std::process::Command;

use super::program::{
    ALBEF, Answer, CLIP, Count, NLVR2, Place, Program, VQA, files, questions, statements, table,
};

/// A place with a small run of `albef`, questions and statements.
fn with_albef() -> Place {
    let place = Place::new();
    table(&place, "");
    questions(&place);
    statements(&place);
    place.finished(ALBEF, "albef", &[]);
    place
}

fn list(program: Program) -> &'static str {
    match program.command {
        ["vqa"] => "questions.json",
        _ => "statements.json",
    }
}

fn start_on(place: &Place, program: Program, data: &str, arguments: &[&str]) -> Answer {
    let _ = fs::remove_dir_all(place.join("run"));
    let start = ["--output", "run", "--init", "albef", "--data", data];
    let mut command = place.small_run(program, &start);
    // Over those of a small run.
    Answer::of(command.args(arguments))
}

fn start(place: &Place, program: Program, pairs: &[&str]) -> Answer {
    let sets: Vec<_> = pairs.iter().flat_map(|pair| ["--set", pair]).collect();
    start_on(place, program, list(program), &sets)
}

fn resume(place: &Place, program: Program, run: &str, pairs: &[&str]) -> Answer {
    let sets = pairs.iter().flat_map(|pair| ["--set", pair]);
    Answer::of(&mut place.run(program, ["--resume", run].into_iter().chain(sets)))
}

/// Settings that are refused, of both programs.
const BOTH: [(&str, &str); 12] = [
    ("tokens=1", "tokens = 1 must be in 2..="),
    ("tokens=13", "tokens = 13 must be in 2..="),
    (
        "distillation.momentum=1.5",
        "momentum = 1.5 must be in [0, 1]",
    ),
    (
        "distillation.soft_targets=2",
        "soft_targets = 2 must be in [0, 1]",
    ),
    (
        "distillation.ramp_epochs=-1",
        "ramp_epochs = -1 must be at least 0",
    ),
    ("model.embedding=8", "does not fit the model"),
    (
        "model.image.width=16",
        "image.width = 16 must be bert.width = 8",
    ),
    (
        "model.bert.fusion_layers=2",
        "bert.fusion_layers = 2 must be in 1..",
    ),
    ("model.bert.vocabulary=40", "model.bert.vocabulary"),
    ("data.batch_size=100", "fewer than one batch"),
    ("data.tokenizer=absent", "absent"),
    ("objective=info-nce", "there is no setting objective"),
];

#[test]
fn settings_that_do_not_fit_together_are_refused_and_leave_nothing() {
    let mut count = Count::new("settings of vqa and nlvr2");
    let place = with_albef();
    let vqa = [
        ("tokens=12", "tokens = 12 must be in 2..=11"),
        ("answers=0", "answers must be at least 1"),
        (
            "validation_questions=0",
            "validation_questions must be at least 1",
        ),
        ("decoder=decoder", "lacks decoder."),
        ("decoder=twin", "decoder: unknown variant"),
        ("momentum.queue=4", "there is no setting momentum"),
    ];
    let nlvr2 = [
        (
            "assignment.batch_size=1",
            "assignment.batch_size must be at least 2",
        ),
        ("assignment.batch_size=100", "fewer than one batch"),
        (
            "assignment.learning_rate=0",
            "assignment.learning_rate = 0 must be positive",
        ),
        ("assignment.image_size=17", "assignment.image_size"),
        ("assignment.steps=-1", "assignment.steps"),
        ("assignment.data=absent", "absent"),
        ("assignment.data=statements.json", "statements.json"),
        ("answers=5", "there is no setting answers"),
    ];
    for (program, own) in [(VQA, &vqa[..]), (NLVR2, &nlvr2)] {
        for (pair, reason) in BOTH.iter().chain(own) {
            count.refused(pair, &start(&place, program, &[pair]), reason);
            assert!(!place.join("run").exists(), "{pair}");
        }
    }
    // At the ends of what they may be.
    let ends = ["answers=1000000", "distillation.soft_targets=1", "tokens=2"];
    count.taken("vqa", &start(&place, VQA, &ends));
    let ends = ["assignment.steps=0", "distillation.momentum=0", "tokens=2"];
    count.taken("nlvr2", &start(&place, NLVR2, &ends));
    assert!(!place.join("run/text-assignment").exists());
}

#[test]
fn runs_of_others_are_refused_and_stay_as_they_were() {
    let mut count = Count::new("runs of other programs");
    let place = with_albef();
    place.finished(CLIP, "clip", &[]);
    for program in [VQA, NLVR2] {
        count.taken("whole", &start(&place, program, &[]));
        fs::rename(place.join("run"), place.join(program.command[0])).unwrap();
    }
    let from = |program: Program, run: &str| {
        let start = ["--output", "run", "--data", list(program), "--init", run];
        Answer::of(&mut place.small_run(program, &start))
    };
    let mut config = Command::new("cp");
    let copied = config
        .args(["-r", "albef", "bare"])
        .current_dir(place.path())
        .status();
    assert!(copied.unwrap().success());
    fs::remove_dir_all(place.join("bare/checkpoints")).unwrap();
    for (program, run, reason) in [
        (
            VQA,
            "clip",
            "neither a run of `albef` nor one of `albef vqa`",
        ),
        (
            VQA,
            "nlvr2",
            "neither a run of `albef` nor one of `albef vqa`",
        ),
        (
            VQA,
            "nlvr2/text-assignment",
            "neither a run of `albef` nor one of `albef vqa`",
        ),
        (VQA, "bare", "bare is no run with a checkpoint"),
        (VQA, "absent", "no run in absent"),
        (VQA, "albef:model.nothing", "has no module model.nothing"),
        (NLVR2, "clip", "no run of `albef`"),
        (NLVR2, "vqa", "no run of `albef`"),
        (NLVR2, "nlvr2", "no run of `albef`"),
        (NLVR2, "bare", "bare is no run with a checkpoint"),
        (NLVR2, "questions.json", "no run in questions.json"),
        (NLVR2, "albef:model.nothing", "has no module model.nothing"),
    ] {
        count.refused(run, &from(program, run), reason);
        assert!(!place.join("run").exists(), "{run}");
    }
    let model = place.join("albef/checkpoints/step-000002/model.bpk");
    let whole = fs::read(&model).unwrap();
    for damaged in [&whole[..whole.len() / 2], b""] {
        fs::write(&model, damaged).unwrap();
        for program in [VQA, NLVR2] {
            count.refused("damaged", &from(program, "albef"), "model.bpk is damaged");
            assert!(!place.join("run").exists());
        }
    }
    fs::remove_file(place.join("albef/tokenizer.json")).unwrap();
    count.refused("no tokenizer", &from(VQA, "albef"), "albef/tokenizer.json");
    assert!(!place.join("run").exists());

    for (program, run) in [
        (VQA, "nlvr2"),
        (VQA, "albef"),
        (NLVR2, "vqa"),
        (NLVR2, "nlvr2/text-assignment"),
        (ALBEF, "vqa"),
        (ALBEF, "nlvr2"),
        (CLIP, "vqa"),
    ] {
        let before = files(&place.join(run));
        let reason = "config.json is not a configuration of this program";
        count.refused(run, &resume(&place, program, run, &[]), reason);
        assert!(files(&place.join(run)) == before, "{run} was changed");
    }
}

#[test]
fn what_a_run_was_trained_with_stays_and_damage_is_named() {
    let mut count = Count::new("changes and damage of vqa and nlvr2");
    let place = with_albef();
    for (program, pairs, kept) in [
        (
            VQA,
            &[
                "answers=5",
                "decoder=decoder",
                "distillation.momentum=0.1",
                "validation_questions=3",
            ][..],
            &["start/checkpoints/step-000000", "checkpoints/step-000002"][..],
        ),
        (
            NLVR2,
            &[
                "assignment.steps=3",
                "assignment.data=null",
                "distillation.soft_targets=0",
                "tokens=9",
            ],
            &[
                "text-assignment/checkpoints/step-000002",
                "checkpoints/step-000002",
            ],
        ),
    ] {
        count.taken("whole", &start(&place, program, &[]));
        let run = place.join("run");
        let before = files(&run);
        for pair in pairs {
            let answer = resume(&place, program, "run", &[pair]);
            count.refused(pair, &answer, "it cannot go on with");
            assert!(files(&run) == before, "{pair} changed the run");
        }
        for folder in kept {
            for name in ["model.bpk", "state.json", "SHA256SUMS"] {
                let file = run.join(folder).join(name);
                let whole = fs::read(&file).unwrap();
                for damaged in [&whole[..whole.len() / 2], b""] {
                    fs::write(&file, damaged).unwrap();
                    count.refused(name, &resume(&place, program, "run", &[]), folder);
                }
                fs::write(&file, whole).unwrap();
            }
        }
        let data = fs::read_to_string(place.join(list(program))).unwrap();
        place.write(list(program), data.replace("number 3", "number three"));
        count.refused(
            "other data",
            &resume(&place, program, "run", &[]),
            "not those",
        );
        place.write(list(program), data);
        let more = resume(&place, program, "run", &["schedule.steps=3"]);
        count.taken("mended", &more);
    }
}

#[test]
fn files_of_somebody_else_are_left_and_a_run_is_not_begun_twice() {
    let mut count = Count::new("folders of runs in stages");
    let place = with_albef();
    let again = |program: Program, pairs: &[&str]| {
        let start = [
            "--output",
            "run",
            "--init",
            "albef",
            "--data",
            list(program),
        ];
        let mut command = place.small_run(program, &start);
        command.args(pairs.iter().flat_map(|pair| ["--set", pair]));
        Answer::of(&mut command)
    };
    for (program, name) in [
        (VQA, "start"),
        (VQA, "start/x"),
        (NLVR2, "start/x"),
        (NLVR2, "text-assignment"),
        (NLVR2, "text-assignment/config.json"),
        (NLVR2, "text-assignment/metrics.json"),
        (NLVR2, "text-assignment/checkpoints/x"),
    ] {
        let file = place.write(&format!("run/{name}"), "mine");
        let answer = again(program, &[]);
        count.refused(
            name,
            &answer,
            name.strip_suffix("/x")
                .unwrap_or(name)
                .rsplit('/')
                .next()
                .unwrap(),
        );
        assert_eq!(fs::read(&file).unwrap(), b"mine");
        fs::remove_file(&file).unwrap();
        // Nothing is left that stands in the way.
        for folder in ["run/start", "run/text-assignment"] {
            let _ = fs::remove_dir_all(place.join(folder));
        }
        count.taken(name, &again(program, &[]));
        fs::remove_dir_all(place.join("run")).unwrap();
    }
    // After its first stage a run is there, whatever it is to be started with.
    count.taken("both stages", &again(NLVR2, &[]));
    fs::remove_dir_all(place.join("run/checkpoints")).unwrap();
    fs::remove_file(place.join("run/metrics.json")).unwrap();
    let before = files(&place.join("run/text-assignment"));
    count.refused("again", &again(NLVR2, &["seed=9"]), "already holds a run");
    assert!(files(&place.join("run/text-assignment")) == before);
    count.taken("resumed", &resume(&place, NLVR2, "run", &[]));
}
