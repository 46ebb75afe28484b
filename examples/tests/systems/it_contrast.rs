//! A small run of `it-contrast` from data to report, through all its stages; its comparison, and
//! what it refuses.

use std::fs;
use std::path::Path;
use std::process::Command;

use burn::train::Interrupter;
use burn_contrastive_examples::data::RegionWriter;
use burn_contrastive_examples::data::regions::image_names;
use burn_contrastive_examples::report::SweepRow;
use burn_contrastive_examples::systems::it_contrast::{ItContrast, ItContrastConfig, comparisons};
use burn_contrastive_examples::training::config;
use burn_contrastive_examples::training::evaluation::chance;
use burn_contrastive_examples::training::plan::Plan;
use burn_contrastive_examples::training::run::{Ended, Folder, Program, evaluate};
use burn_contrastive_examples::training::system::SystemConfig;
use burn_contrastive_examples::training::weights::{Weights, trained};

use crate::recomputed::assert_report;
use crate::{exclusively, metrics};

type TrainingConfig = config::TrainingConfig<ItContrastConfig>;

const REGIONS: &str = "regions.safetensors";

pub fn small(pairs: &[&str]) -> TrainingConfig {
    let settings = [
        "data.scenes.train=600",
        "data.scenes.validation=30",
        "data.scenes.test=100",
        "data.scenes.image_size=32",
        "data.scenes.three_objects=0",
        "data.batch_size=64",
        "model.feature=32",
        "model.bert.width=48",
        "model.bert.intermediate=96",
        "model.bert.layers=2",
        "negatives.noise=32",
        "regions.boxes.per_image=3",
        "regions.tower.steps=60",
        "regions.tower.model.image.image_size=32",
        "regions.tower.model.image.patch_size=8",
        "regions.tower.model.image.width=32",
        "regions.tower.model.image.layers=1",
        "regions.tower.model.text.width=32",
        "regions.tower.model.text.layers=1",
        "regions.tower.model.embedding=32",
        "optimizer.learning_rate=2e-3",
        "schedule.steps=120",
        "schedule.warmup_steps=20",
        "validation.every=60",
    ];
    let pairs: Vec<String> = settings
        .iter()
        .chain(pairs)
        .map(ToString::to_string)
        .collect();
    TrainingConfig::load(None, &pairs).unwrap()
}

/// A few steps of each stage, on less.
fn short(pairs: &[&str]) -> TrainingConfig {
    let settings = [
        "data.scenes.train=128",
        "regions.tower.steps=3",
        "regions.tower.batch_size=32",
        "schedule.steps=3",
        "schedule.warmup_steps=1",
        "validation.every=2",
    ];
    small(&[&settings, pairs].concat())
}

pub fn go(
    config: &TrainingConfig,
    folder: Folder,
    scenes: &Path,
    is_stopped: bool,
) -> anyhow::Result<Ended<ItContrast>> {
    let interrupter = Interrupter::new();
    if is_stopped {
        interrupter.stop(Some("test"));
    }
    let options = crate::options(folder, scenes, &["it-contrast"]);
    ItContrast::run(config, &options, interrupter)
}

#[test]
fn a_small_run_learns_from_regions_that_it_makes_and_reports_it() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let ended = go(&small(&[]), Folder::New(out.clone()), folder.path(), false);
    let Ended::Reached(reached) = ended.unwrap() else {
        panic!("the run was not finished");
    };
    let (first, last) = reached.losses;
    assert!(last < 0.7 * first, "the loss went from {first} to {last}");
    let after = reached.after.metrics();
    let chance = chance(&reached.test.set);
    for (name, before, after, chance) in [
        (
            "image to text",
            reached.before.metrics().image_to_text,
            after.image_to_text,
            chance.image_to_text,
        ),
        (
            "text to image",
            reached.before.metrics().text_to_image,
            after.text_to_image,
            chance.text_to_image,
        ),
    ] {
        assert!((chance.recall_at_1 - 1.0).abs() < 0.05, "{name}");
        assert!(before.recall_at_1 < 6.0, "{name}: {before:?}");
        assert!(after.recall_at_1 >= 10.0, "{name}: {after:?}");
    }
    let written = metrics(&out);
    assert_eq!(written.curves.loss.points.len(), 120);
    assert_report(
        Some(&reached.before),
        &reached.after,
        &reached.test.set,
        &written,
    );
    let scores = written.retrieval.after.unwrap().scores;
    assert_eq!(
        scores.text_to_image.recall_at_1,
        after.text_to_image.recall_at_1
    );
    assert_eq!(
        scores.image_to_text.recall_at_1,
        after.image_to_text.recall_at_1
    );
    assert!(out.join("report.html").is_file());
    // The stage has a report of its own, on the same words.
    assert_eq!(metrics(&out.join("clip")).curves.loss.points.len(), 60);
    let tokens = |run: &Path| fs::read(run.join("tokenizer.json")).unwrap();
    assert_eq!(tokens(&out), tokens(&out.join("clip")));
}

#[test]
fn a_run_interrupted_in_every_stage_goes_on_to_the_same_bits() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = short(&[]);
    let ended = go(&config, Folder::New(at("whole")), folder.path(), false).unwrap();
    assert!(matches!(ended, Ended::Reached(_)));

    let parts = at("parts");
    let interrupted = |folder_of: Folder| {
        let ended = go(&config, folder_of, folder.path(), true).unwrap();
        assert!(matches!(ended, Ended::Interrupted));
    };
    // In the tower's training: each start comes a step further.
    interrupted(Folder::New(parts.clone()));
    assert!(parts.join("clip/checkpoints/step-000001").exists());
    for _ in 0..2 {
        interrupted(Folder::Resume(parts.clone()));
    }
    // Before the regions are there, which takes no half of them.
    interrupted(Folder::Resume(parts.clone()));
    assert!(parts.join("clip/metrics.json").is_file());
    assert!(!parts.join(REGIONS).exists());
    // In the training itself, on the regions that the other run has seen.
    fs::copy(at("whole").join(REGIONS), parts.join(REGIONS)).unwrap();
    interrupted(Folder::Resume(parts.clone()));
    assert!(parts.join("checkpoints/step-000001").exists());
    // The regions are seen again, and are the same.
    fs::remove_file(parts.join(REGIONS)).unwrap();
    let ended = go(&config, Folder::Resume(parts.clone()), folder.path(), false).unwrap();
    assert!(matches!(ended, Ended::Reached(_)));

    let bytes = |run: &str| fs::read(at(run).join(REGIONS)).unwrap();
    assert!(bytes("whole") == bytes("parts"));
    let weights = |run: &str| {
        let device = burn::tensor::Device::flex();
        let model = config.system.init(&device);
        let none: &[&str] = &[];
        let weights = Weights::of_run(&at(run)).unwrap();
        let model = weights.load_into(model, none, none).unwrap();
        let words = model.model.bert.embeddings.words().into_data();
        let types = model.model.bert.embeddings.token_type(1).into_data();
        (words, types)
    };
    assert_eq!(weights("whole"), weights("parts"));
    let losses = |run: &str| metrics(&at(run)).curves.loss.points;
    assert_eq!(losses("whole"), losses("parts"));
}

/// That a row of a comparison has R@1 both ways and R@sum of the embeddings of its run.
fn assert_row(row: &SweepRow, run: &Path, scenes: &Path) {
    let device = burn::tensor::Device::flex();
    let (config, model) = trained::<ItContrast>(run, &device).unwrap();
    let folder = Folder::Resume(run.to_path_buf());
    let options = crate::options(folder, scenes, &["it-contrast"]);
    let data = ItContrast::open(&config, &options, Some(run)).unwrap();
    let scores = model.evaluate(&data.test, 64, true).unwrap();
    let mut metrics = metrics(run);
    metrics.retrieval.before = None;
    // What the row says in place of what the run's own report says.
    let reported = metrics.retrieval.after.as_mut().unwrap();
    reported.scores.image_to_text.recall_at_1 = row.numbers[0];
    reported.scores.text_to_image.recall_at_1 = row.numbers[1];
    reported.r_sum = row.numbers[2];
    assert_report(None, &scores, &data.test.set, &metrics);
}

#[test]
fn the_ablation_is_resumed_and_trains_four_settings_on_the_same_regions() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("ablation");
    let config = short(&["schedule.steps=2"]);
    let comparison = comparisons::ablation(&config).unwrap();
    let plan = Plan::once(&["ablation"], Vec::new());
    let go = |folder_of: Folder, interrupter: Interrupter| {
        let options = crate::options(folder_of, folder.path(), &["it-contrast", "ablation"]);
        let ended = comparison.run::<ItContrast>(&plan, &options, &interrupter);
        ended.unwrap()
    };
    // Each start comes a step further in the tower, then in the runs; regions are not half seen.
    assert!(go(Folder::New(out.clone()), crate::stopped()).is_none());
    for _ in 0..3 {
        assert!(go(Folder::Resume(out.clone()), crate::stopped()).is_none());
    }
    assert!(out.join("clip/metrics.json").is_file() && !out.join("base").exists());
    let sweep = go(Folder::Resume(out.clone()), Interrupter::new()).unwrap();
    assert_eq!(metrics(&out).sweeps, std::slice::from_ref(&sweep));
    let names: Vec<_> = sweep.rows.iter().map(|row| row.value.as_str()).collect();
    assert_eq!(names, ["base", "+ Syn.", "+ Info.", "+ Syn. + Info."]);
    let mut first = Vec::new();
    for (row, name) in sweep
        .rows
        .iter()
        .zip(["base", "synthesis", "noise", "both"])
    {
        let run = out.join(name);
        assert!(!run.join(REGIONS).exists() && !run.join("clip").exists());
        let metrics = metrics(&run);
        let scores = metrics.retrieval.after.unwrap().scores;
        assert_eq!(row.numbers[0], scores.image_to_text.recall_at_1);
        assert_row(row, &run, folder.path());
        first.push(metrics.curves.loss.points[0].value);
    }
    assert!(out.join(REGIONS).is_file());
    // The same weights see more negatives.
    let [base, synthesis, noise, both] = first[..] else {
        panic!("there are four runs");
    };
    assert!(base < synthesis && base < noise, "{first:?}");
    assert!(synthesis < both && noise < both, "{first:?}");
}

/// What the program says of the evaluation of the run `run` in that folder.
fn evaluated(folder: &Path, output: &str, more: &[&str]) -> (bool, String) {
    let arguments = ["evaluate", "--init", "run", "--output", output];
    program(&[&arguments[..], more].concat(), folder)
}

#[test]
fn a_run_is_evaluated_on_data_that_it_never_saw_by_the_tower_of_its_regions() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let runs = at("runs");
    go(&short(&[]), Folder::New(at("run")), &runs, false).unwrap();
    let evaluated = |output: &str, more: &[&str]| evaluated(folder.path(), output, more);
    let regions = |run: &str| fs::read(at(run).join(REGIONS)).unwrap();

    // On the same data it finds what the run found.
    let (is_done, text) = evaluated("same", &[]);
    assert!(is_done, "{text}");
    let [run, same] = ["run", "same"].map(|run| metrics(&at(run)));
    assert_eq!(same.retrieval.after, run.retrieval.after);
    assert!(same.retrieval.before.is_none() && same.retrieval.chance.is_some());
    assert!(regions("run") == regions("same"));
    assert!(!at("same/clip").exists() && !at("same/checkpoints").exists());

    // On others, what their embeddings say.
    let others = ["data.scenes.seed=5", "data.scenes.test=90"];
    let (is_done, text) = evaluated("others", &["--set", others[0], "--set", others[1]]);
    assert!(is_done, "{text}");
    let mut config = short(&others);
    config.shared.init = Some(at("run").to_str().unwrap().parse().unwrap());
    config.shared.data.tokenizer = Some(at("run/tokenizer.json"));
    config.system.taken_from(&at("run"));
    let options = crate::options(
        Folder::New(at("again")),
        &runs,
        &["it-contrast", "evaluate"],
    );
    let scores = evaluate::<ItContrast>(&config, &options).unwrap();
    let set = ItContrast::open(&config, &options, None).unwrap().test.set;
    assert_eq!(set.num_images(), 90);
    let [others, again] = ["others", "again"].map(|run| metrics(&at(run)));
    assert_eq!(others.retrieval.after, again.retrieval.after);
    assert!(others.retrieval.after != run.retrieval.after);
    assert_report(None, &scores, &set, &others);

    // A file of the same regions takes the tower's place.
    let file = format!("regions.file={}", at("again").join(REGIONS).display());
    let set = [
        "--set",
        "data.scenes.seed=5",
        "--set",
        "data.scenes.test=90",
    ];
    let (is_done, text) = evaluated("file", &[&set[..], &["--set", &file]].concat());
    assert!(is_done, "{text}");
    assert_eq!(metrics(&at("file")).retrieval.after, again.retrieval.after);
    assert!(!at("file").join(REGIONS).exists());
}

#[test]
fn what_an_evaluation_lacks_is_named() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let evaluated = |output: &str, more: &[&str]| evaluated(folder.path(), output, more);
    go(&short(&[]), Folder::New(at("run")), &at("runs"), false).unwrap();

    // A report without a map says why.
    let (is_done, text) = evaluated("few", &["--set", "data.scenes.test=6"]);
    let reason = "No map of the embeddings after training: of 6 pairs there is none, it needs 8";
    assert!(is_done && text.contains(reason), "{text}");

    // Without a tower nothing is left behind.
    fs::rename(at("run/clip"), at("elsewhere")).unwrap();
    let (is_done, text) = evaluated("none", &[]);
    assert!(!is_done && text.contains("regions.run"), "{text}");
    let (is_done, text) = evaluated("none", &["--set", "regions.run=null"]);
    assert!(!is_done && text.contains("set regions.file to"), "{text}");
    let (is_done, text) = evaluated("none", &["--set", "regions.file=absent"]);
    assert!(!is_done && text.contains("regions.file"), "{text}");
    assert!(!at("none").exists());
    let (is_done, text) = evaluated("moved", &["--set", "regions.run=elsewhere"]);
    assert!(is_done, "{text}");
    let [run, moved] = ["run", "moved"].map(|run| metrics(&at(run)));
    assert_eq!(moved.retrieval.after, run.retrieval.after);
}

#[test]
fn a_run_reads_what_its_regions_show_where_asked() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let runs = at("runs");
    let first = |run: &str| metrics(&at(run)).curves.loss.points[0].value;
    let without = short(&[]);
    go(&without, Folder::New(at("without")), &runs, false).unwrap();
    let with = short(&["tags=true"]);
    let ended = go(&with, Folder::New(at("with")), &runs, true).unwrap();
    assert!(matches!(ended, Ended::Interrupted));
    let ended = go(&with, Folder::Resume(at("with")), &runs, false).unwrap();
    let Ended::Reached(reached) = ended else {
        panic!("the run was not finished");
    };
    let reported = metrics(&at("with"));
    assert_report(
        Some(&reached.before),
        &reached.after,
        &reached.test.set,
        &reported,
    );
    // The same regions and weights, seen with and without tags.
    let regions = |run: &str| fs::read(at(run).join(REGIONS)).unwrap();
    assert!(regions("with") == regions("without"));
    assert!(first("with") != first("without"));

    // A run goes on as it began.
    let ended = go(&without, Folder::Resume(at("with")), &runs, false);
    let message = format!("{:#}", ended.err().unwrap());
    assert!(message.contains("with tags = true"), "{message}");

    // Without tags there are none to read: of a file, and of pictures that are no scenes.
    let refused = |config: &TrainingConfig| {
        let ended = go(config, Folder::New(at("none")), &runs, false);
        assert!(!at("none").exists());
        format!("{:#}", ended.err().unwrap())
    };
    let test = &reached.test;
    let pictures = test.set.collection();
    let names = image_names(pictures);
    let boxes = vec![vec![[0.0, 0.0, 1.0, 1.0]]; names.len()];
    let file = at("r.safetensors");
    let mut writer = RegionWriter::create(&file, &names, boxes, 32).unwrap();
    names.iter().for_each(|_| writer.push(&[0.5; 32]).unwrap());
    writer.finish().unwrap();
    let mut config = with.clone();
    config.system.regions.file = Some(file);
    let message = refused(&config);
    assert!(message.contains("it has no `class`"), "{message}");
    assert!(message.contains("regions.file"), "{message}");
    let row = |index: usize| {
        let example = &pictures.examples[index];
        let (image, caption) = (example.image.path().display(), &example.captions[0]);
        format!("{image}\t{caption}\t{}\n", example.split)
    };
    let table: String = (0..pictures.examples.len()).map(row).collect();
    fs::write(at("table.tsv"), format!("image\tcaption\tsplit\n{table}")).unwrap();
    let mut config = with;
    config.shared.data.path = Some(at("table.tsv"));
    let message = refused(&config);
    assert!(message.contains("its images are no scenes"), "{message}");
}

fn program(arguments: &[&str], folder: &Path) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_it-contrast"));
    let output = command
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn regions_of_a_clip_run_are_written_by_the_program_and_read_by_a_run() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = short(&[]);
    let runs = at("runs");
    go(&config, Folder::New(at("first")), &runs, false).unwrap();

    let write = [
        "regions",
        "--init",
        "first/clip",
        "--output",
        "r.safetensors",
    ];
    let (is_done, text) = program(&[&write[..], &["--per-image", "2"]].concat(), folder.path());
    assert!(
        is_done && text.contains("516 regions of 258 images"),
        "{text}"
    );
    let (is_done, text) = program(&write, folder.path());
    assert!(!is_done && text.contains("exists already"), "{text}");
    let (is_done, text) = program(&write[..3], folder.path());
    assert!(!is_done && text.contains("needs --output FILE"), "{text}");
    let (is_done, text) = program(&["regions", "--output", "s.safetensors"], folder.path());
    assert!(!is_done && text.contains("needs --init RUN"), "{text}");

    let mut config = short(&["regions.file=x"]);
    config.system.regions.file = Some(at("r.safetensors"));
    let ended = go(&config, Folder::New(at("second")), &runs, false).unwrap();
    assert!(matches!(ended, Ended::Reached(_)));
    assert!(!at("second").join("clip").exists());

    crate::assert_no_other_value(&at("r.safetensors"), || {
        go(&config, Folder::Resume(at("second")), &runs, false)
    });

    // Features of another width, and a file of other images, are refused and leave nothing.
    config.system.model.feature = 31;
    let refused = |config: &TrainingConfig| {
        let ended = go(config, Folder::New(at("third")), &runs, false);
        assert!(!at("third").exists());
        format!("{:#}", ended.err().unwrap())
    };
    let message = refused(&config);
    assert!(message.contains("regions.file"), "{message}");
    assert!(message.contains("set model.feature=32"), "{message}");
    config.system.model.feature = 32;
    config.shared.data.scenes.test = 101;
    let message = refused(&config);
    assert!(
        message.contains("it has no row for 000258.png"),
        "{message}"
    );
}
