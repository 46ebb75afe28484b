//! Small runs of `visual-semantic` from data to report, through its three phases.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use burn::store::{BurnpackStore, ModuleStore, bridge};
use burn::tensor::{Device, TensorData, Tolerance};
use burn::train::Interrupter;
use burn_contrastive_examples::data::{CaptionTokenizer, FeatureFile};
use burn_contrastive_examples::report::{Metrics, ScoresWithSum};
use burn_contrastive_examples::systems::visual_semantic::{VisualSemantic, VisualSemanticConfig};
use burn_contrastive_examples::training::config;
use burn_contrastive_examples::training::plan::Plan;
use burn_contrastive_examples::training::run::{
    Ended, Folder, Options, Program, Reached, evaluate,
};
use burn_contrastive_examples::training::system::SystemConfig;
use burn_contrastive_examples::training::weights::Weights;

use crate::recomputed::assert_report;
use crate::{exclusively, metrics, stopped};

type TrainingConfig = config::TrainingConfig<VisualSemanticConfig>;

fn options(folder: Folder, scenes: &Path) -> Options {
    crate::options(folder, scenes, &["visual-semantic"])
}

const SMALL: &[&str] = &[
    "data.scenes.train=24",
    "data.scenes.validation=8",
    "data.scenes.test=8",
    "data.scenes.image_size=16",
    "data.batch_size=8",
    "model.image.image_size=16",
    "model.image.blocks=[1,1]",
    "model.image.width=4",
    "model.text.vocabulary=300",
    "model.text.words=6",
    "model.text.width=10",
    "model.embedding=8",
    "model.heads.hidden=12",
    "model.heads.output=6",
    "base.first.batch_size=8",
    "base.first.schedule.steps=2",
    "base.first.schedule.warmup_steps=0",
    "base.second.batch_size=6",
    "base.second.schedule.steps=2",
    "schedule.steps=3",
    "schedule.warmup_steps=1",
    "validation.every=2",
];

fn load(settings: &[&[&str]]) -> TrainingConfig {
    let pairs: Vec<String> = settings.concat().iter().map(ToString::to_string).collect();
    TrainingConfig::load(None, &pairs).unwrap()
}

fn small(pairs: &[&str]) -> TrainingConfig {
    load(&[SMALL, pairs])
}

/// The parameters of the last checkpoint of a run.
fn parameters(run: &Path) -> BTreeMap<String, TensorData> {
    let folders = fs::read_dir(run.join("checkpoints")).unwrap();
    let last = folders.map(|entry| entry.unwrap().path()).max().unwrap();
    let mut store = BurnpackStore::from_file(last.join("model.bpk"));
    let all = store.get_all_tensors().unwrap();
    let all = all
        .iter()
        .map(|(path, tensor)| (path.clone(), bridge::to_data(tensor).unwrap()));
    all.collect()
}

/// How many of the image encoder's parameters, and how many of the others that both have, differ.
fn differing(a: &Path, b: &Path) -> [usize; 2] {
    let [a, b] = [a, b].map(parameters);
    let mut counts = [0; 2];
    for (path, value) in &a {
        if b.get(path).is_some_and(|other| other != value) {
            counts[usize::from(!path.starts_with("image."))] += 1;
        }
    }
    counts
}

fn is_finished(ended: &Ended<VisualSemantic>) -> bool {
    matches!(ended, Ended::Reached(_))
}

/// That a report says what the embeddings say, before the training and after it.
fn assert_recomputed(reached: &Reached<VisualSemantic>, metrics: &Metrics) {
    let [before, after] = [&reached.before, &reached.after].map(|scores| &scores.retrieved);
    assert_report(Some(before), after, &reached.test.set, metrics);
}

/// The recalls and R@sum of a report's facts of that name.
fn facts(metrics: &Metrics, name: &str) -> Vec<f64> {
    let facts = metrics.facts.iter();
    let facts = facts.filter(|fact| fact.name.starts_with(name));
    facts.map(|fact| fact.value).collect()
}

fn numbers(scores: &ScoresWithSum) -> Vec<f64> {
    let both = [scores.scores.image_to_text, scores.scores.text_to_image];
    let recalls = both.map(|ranks| [ranks.recall_at_1, ranks.recall_at_5, ranks.recall_at_10]);
    [&recalls.concat()[..], &[scores.r_sum]].concat()
}

#[test]
fn a_small_run_learns_in_each_phase_and_reports_it() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = load(&[&[
        "data.scenes.train=400",
        "data.scenes.validation=50",
        "data.scenes.test=100",
        "data.scenes.image_size=32",
        "data.scenes.three_objects=0",
        "data.batch_size=64",
        "model.image.image_size=32",
        "model.image.blocks=[1,1,1]",
        "model.image.width=12",
        "model.text.words=32",
        "model.text.width=48",
        "model.embedding=48",
        "model.heads.hidden=64",
        "model.heads.output=32",
        "base.first.batch_size=64",
        "base.first.learning_rate=2e-3",
        "base.first.schedule.steps=120",
        "base.second.batch_size=64",
        "base.second.schedule.steps=20",
        "schedule.steps=60",
        "optimizer.learning_rate=1e-3",
        "validation.every=100",
    ]]);
    let options = options(Folder::New(out.clone()), folder.path());
    let ended = VisualSemantic::run(&config, &options, Interrupter::new()).unwrap();
    let Ended::Reached(reached) = ended else {
        panic!("the run was not finished");
    };
    let [first, second, whole] = ["base-first", "base-second", ""].map(|run| out.join(run));
    let runs = [&first, &second, &whole].map(|run| metrics(run));
    let after = runs.each_ref().map(|run| run.retrieval.after.unwrap());
    println!("{:?}", after.map(|scores| scores.r_sum));
    // Chance is 1 % at rank 1, and 16 % of recall each way in the sum.
    let untrained = runs[0].retrieval.before.unwrap().r_sum;
    assert!(untrained < 90.0, "{untrained}");
    for scores in &after {
        let recalls = numbers(scores)[..6].iter().sum::<f64>();
        assert!((scores.r_sum - recalls).abs() < 1e-9);
    }
    for scores in &after[..2] {
        assert!(scores.r_sum > 130.0, "R@sum is {}", scores.r_sum);
    }
    assert_recomputed(&reached, &runs[2]);
    // New heads know little, and learn.
    let before = runs[2].retrieval.before.unwrap();
    assert!(after[2].r_sum > before.r_sum + 30.0);
    let (first_loss, last_loss) = reached.losses;
    assert!(last_loss < first_loss, "{first_loss} to {last_loss}");

    // The base network's scores are those that its own run reported.
    let base = facts(&runs[2], "Base network");
    assert_eq!(base.len(), 7);
    assert_eq!(base, numbers(&after[1]));
    assert!(facts(&runs[1], "Base network").is_empty());
    assert_eq!(
        runs.each_ref().map(|run| run.curves.loss.points.len()),
        [120, 20, 60]
    );
    let page = fs::read_to_string(whole.join("report.html")).unwrap();
    assert!(page.contains("Base network: R@1 image → text") && page.contains("data:image/"));

    // The image encoder is trained in both phases of the base network, and not by the run.
    assert!(differing(&first, &second)[0] > 10);
    let [image, others] = differing(&second, &whole);
    assert_eq!(image, 0);
    assert!(others > 5, "{others}");
}

#[test]
fn a_run_that_is_interrupted_after_every_step_ends_like_another() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = small(&[]);
    let go = |folder: Folder, interrupter| {
        let options = options(folder, &at("scenes"));
        is_finished(&VisualSemantic::run(&config, &options, interrupter).unwrap())
    };
    assert!(go(Folder::New(at("whole")), Interrupter::new()));
    let parts = at("parts");
    assert!(!go(Folder::New(parts.clone()), stopped()));
    assert!(!parts.join("base-second").exists());
    let mut calls = 1;
    while !go(Folder::Resume(parts.clone()), stopped()) {
        calls += 1;
        assert!(calls < 20 && !parts.join("report.html").exists());
    }
    for stage in ["base-first", "base-second", ""] {
        let [found, expected] = [&parts, &at("whole")].map(|run| run.join(stage));
        let [a, b] = [&found, &expected].map(|run| metrics(run));
        assert_eq!(a.curves, b.curves, "{stage}");
        assert_eq!(a.retrieval, b.retrieval, "{stage}");
        assert_eq!(a.facts, b.facts, "{stage}");
        assert!(parameters(&found) == parameters(&expected), "{stage}");
    }
}

#[test]
fn a_grid_trains_one_base_network_for_all_of_its_runs() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = small(&[]);
    let axes = [
        "objective=con-vse,con-vse-plus-plus",
        "model.heads.output=4,6",
    ];
    let plan = Plan {
        seeds: 2,
        ..Plan::once(&[], axes.map(|axis| axis.parse().unwrap()).to_vec())
    };
    let comparison = plan.comparison(&config).unwrap();
    let go = |folder: Folder, interrupter: Interrupter| {
        let options = options(folder, &at("scenes"));
        let ended = comparison.run::<VisualSemantic>(&plan, &options, &interrupter);
        ended.unwrap()
    };
    assert!(go(Folder::New(at("grid")), stopped()).is_none());
    let ended = go(Folder::Resume(at("grid")), Interrupter::new()).unwrap();
    assert_eq!(ended.rows.len(), 4);
    let base = numbers(&metrics(&at("grid/base-second")).retrieval.after.unwrap());
    for row in &ended.rows {
        assert_eq!(row.runs.len(), 2);
        for run in &row.runs {
            let run = at("grid").join(&run.name);
            assert!(!run.join("base-first").exists());
            assert_eq!(facts(&metrics(&run), "Base network"), base);
        }
    }
    // Where base networks would differ, each run trains its own.
    for axis in [
        "model.text.width=6,7",
        "base.first.learning_rate=0.1,0.2",
        "seed=1,2",
    ] {
        let plan = Plan::once(&[], vec![axis.parse().unwrap()]);
        assert!(plan.comparison(&config).unwrap().share.is_none(), "{axis}");
    }
    let trained = ["base.run=x", "base.run=y"].map(|run| small(&[run]));
    for plan in [vec!["base.run=x,y".parse().unwrap()], Vec::new()] {
        let plan = Plan::once(&[], plan);
        assert!(plan.comparison(&trained[0]).unwrap().share.is_none());
    }
}

#[test]
fn a_base_network_that_was_trained_before_serves_other_runs() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let go = |name: &str, pairs: &[&str]| {
        let options = options(Folder::New(at(name)), &at("scenes"));
        VisualSemantic::run(&small(pairs), &options, Interrupter::new())
    };
    go("run", &["base.second=null"]).unwrap();
    assert!(!at("run/base-second").exists());
    let base = at("run/base-first");
    let setting = format!("base.run={}", base.display());
    go("same", &["base.second=null", &setting]).unwrap();
    assert!(!at("same/base-first").exists());
    assert!(parameters(&at("same")) == parameters(&at("run")));

    let refused = |name: &str, pairs: &[&str], reason: &str| {
        let error = go(name, pairs).err().unwrap();
        let error = format!("{error:#}");
        assert!(
            error.contains("base.run") && error.contains(reason),
            "{error}"
        );
        assert!(!at(name).exists());
    };
    let run = format!("base.run={}", at("run").display());
    refused("new", &[&run], "has heads, a base network has none");
    let absent = format!("base.run={}", at("absent").display());
    refused("new", &[&absent], "there is no run to read");
    refused(
        "new",
        &[&setting, "model.embedding=7"],
        "is [8, 8] there and [8, 7] here",
    );
    let words = ["data.scenes.seed=5", &setting[..]];
    refused("new", &words, "another tokenizer");
}

#[test]
fn weights_are_evaluated_without_training_as_the_run_that_they_are_of() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let go = |name: &str| options(Folder::New(at(name)), &at("scenes"));
    VisualSemantic::run(&small(&[]), &go("run"), Interrupter::new()).unwrap();
    let mut config = small(&["base=null"]);
    config.shared.init = Some(at("run").to_str().unwrap().parse().unwrap());
    config.shared.data.tokenizer = Some(at("run/tokenizer.json"));
    evaluate::<VisualSemantic>(&config, &go("evaluated")).unwrap();
    let [run, evaluated] = ["run", "evaluated"].map(|run| metrics(&at(run)));
    assert_eq!(evaluated.retrieval.after, run.retrieval.after);

    let both = small(&[]);
    config.system.base = both.system.base;
    let error = evaluate::<VisualSemantic>(&config, &go("both"))
        .err()
        .unwrap();
    assert!(error.to_string().contains("set base=null"), "{error:#}");
    assert!(!at("both").exists());
}

#[test]
fn an_image_encoder_is_not_frozen_before_it_is_trained() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let refused = |config: &TrainingConfig| {
        let options = options(Folder::New(out.clone()), folder.path());
        let error = VisualSemantic::run(config, &options, Interrupter::new());
        assert!(!out.exists());
        format!("{:#}", error.err().unwrap())
    };
    let first = refused(&small(&["base.first.train_image=false"]));
    assert!(first.contains("set base.first.train_image=true"), "{first}");
    let published = refused(&VisualSemanticConfig::base());
    assert_eq!(published, first);
    let own = refused(&small(&["base=null"]));
    assert!(own.contains(": set train_image=true"), "{own}");
}

#[test]
fn features_of_a_run_take_the_place_of_its_image_encoder() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let go = |name: &str| options(Folder::New(at(name)), &at("runs"));
    VisualSemantic::run(&small(&[]), &go("run"), Interrupter::new()).unwrap();
    let base = at("run/base-second");
    let write = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_visual-semantic"));
        command.args(["features", "--init", "run/base-second", "--output", "f.st"]);
        let output = command.current_dir(folder.path()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (is_done, text) = write();
    assert!(is_done && text.contains("40 images of 8 numbers"), "{text}");
    let (is_done, text) = write();
    assert!(!is_done && text.contains("exists already"), "{text}");

    let file = format!("features.file={}", at("f.st").display());
    let on_features = [&file, "features.width=8"];
    let alone = ["base=null", "model.heads=null"];
    let started = |pairs: &[&str]| {
        let mut config = small(&[&alone, pairs].concat());
        config.shared.init = Some(base.to_str().unwrap().parse().unwrap());
        config.shared.data.tokenizer = Some(base.join("tokenizer.json"));
        config
    };
    // Embeddings are those of the tower, and with them all that is reported.
    let [tower, features] = [started(&[]), started(&on_features)];
    let loaded = |config: &TrainingConfig| {
        let model: VisualSemantic = config.system.init(&Device::flex());
        let rules = config.system.rules();
        let weights = Weights::of_run(&base).unwrap();
        weights.load_into(model, rules.new, rules.unused).unwrap()
    };
    let set = VisualSemantic::open(&tower, &go("none"), None).unwrap();
    let set = set.test.set;
    let images = set.image_batches(8, &Device::flex()).next().unwrap();
    let expected = loaded(&tower).embed_image(images.unwrap());
    let rows = FeatureFile::open(&at("f.st"), set.collection()).unwrap();
    let rows = rows.batch(set.indices(), &Device::flex()).unwrap();
    let model = loaded(&features);
    assert!(model.image.is_none());
    let found = model.embed_features(rows).into_data();
    found.assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-5));
    for (name, config) in [("tower", &tower), ("features", &features)] {
        evaluate::<VisualSemantic>(config, &go(name)).unwrap();
    }
    let [a, b] = ["tower", "features"].map(|run| metrics(&at(run)));
    assert_eq!(a.retrieval.after, b.retrieval.after);

    // They train, in all phases or on a base network that had the tower.
    let frozen = [
        "base.first.train_image=false",
        "base.second.train_image=false",
    ];
    let more = [
        "objective=con-vse",
        "schedule.steps=60",
        "optimizer.learning_rate=5e-3",
    ];
    let config = small(&[&more[..], &on_features, &frozen].concat());
    let ended = VisualSemantic::run(&config, &go("trained"), Interrupter::new()).unwrap();
    let Ended::Reached(reached) = ended else {
        panic!("the run was not finished");
    };
    let (first, last) = reached.losses;
    assert!(last < first, "the loss went from {first} to {last}");
    let has_tower = |run: &str| {
        parameters(&at(run))
            .keys()
            .any(|key| key.starts_with("image."))
    };
    assert!(has_tower("run") && !has_tower("trained"));
    let setting = format!("base.run={}", base.display());
    let config = small(&[&on_features[..], &frozen, &[&setting]].concat());
    let ended = VisualSemantic::run(&config, &go("heads"), Interrupter::new()).unwrap();
    assert!(is_finished(&ended) && !has_tower("heads"));
    let told = facts(&metrics(&at("heads")), "Base network");
    assert_eq!(told, numbers(&metrics(&base).retrieval.after.unwrap()));

    let options = options(Folder::Resume(at("heads")), &at("runs"));
    crate::assert_no_other_value(&at("f.st"), || {
        VisualSemantic::run(&config, &options, Interrupter::new())
    });

    // What does not fit is refused.
    let config = small(&[&[&file[..]], &frozen[..]].concat());
    let error = VisualSemantic::run(&config, &go("wide"), Interrupter::new());
    let error = format!("{:#}", error.err().unwrap());
    assert!(error.contains("set features.width=8"), "{error}");
    let pairs: Vec<String> = SMALL.iter().map(ToString::to_string).collect();
    let error = TrainingConfig::load(None, &[&pairs[..], &[file]].concat());
    let error = format!("{:#}", error.unwrap_err());
    assert!(
        error.contains("set base.first.train_image=false"),
        "{error}"
    );
}

#[test]
fn every_objective_of_the_comparison_trains_the_heads() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let go = |name: &str, pairs: &[&str]| {
        let options = options(Folder::New(at(name)), &at("scenes"));
        match VisualSemantic::run(&small(pairs), &options, Interrupter::new()).unwrap() {
            Ended::Reached(reached) => reached,
            _ => panic!("{name} was not finished"),
        }
    };
    go("base", &["base.second=null"]);
    let base = at("base/base-first");
    let base_setting = format!("base.run={}", base.display());
    let mut losses = Vec::new();
    for objective in ["mvn", "nt-xent", "vse"] {
        let reached = go(
            objective,
            &[&base_setting, &format!("objective={objective}")],
        );
        let run = metrics(&at(objective));
        assert_recomputed(&reached, &run);
        let points = run.curves.loss.points;
        assert!(points.len() == 3 && points.iter().all(|point| point.value.is_finite()));
        losses.push(points[0].value);
        let [image, others] = differing(&base, &at(objective));
        assert!(image == 0 && others > 5, "{objective}: {image}, {others}");
    }
    // The same start, measured by three objectives.
    assert!(losses[0] != losses[1] && losses[1] != losses[2] && losses[0] != losses[2]);
}

/// The baselines of the paper's table III: joint embeddings of their own, without heads.
#[test]
fn a_base_network_is_trained_by_the_objective_that_is_named() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut losses = Vec::new();
    for objective in ["mvn", "vse", "vse-plus-plus"] {
        let setting = format!("base.objective={objective}");
        let config = small(&[&setting, "schedule.epochs=null", "schedule.steps=1"]);
        let options = options(Folder::New(at(objective)), &at("scenes"));
        let ended = VisualSemantic::run(&config, &options, Interrupter::new()).unwrap();
        assert!(is_finished(&ended));
        for stage in ["base-first", "base-second"] {
            let metrics = metrics(&at(objective).join(stage));
            assert_eq!(metrics.config["objective"]["objective"], objective);
            assert!(metrics.config["model"]["heads"].is_null());
            assert!(metrics.retrieval.after.is_some());
            losses.push(metrics.curves.loss.points[0].value);
        }
        let own = metrics(&at(objective)).config["objective"]["objective"].clone();
        assert_eq!(own, "con-vse-plus-plus");
    }
    // Each phase has a loss of its own, but that VSE++ begins as VSE, which is its warm-up.
    losses.sort_by(f64::total_cmp);
    losses.dedup();
    assert_eq!(losses.len(), 5);
}

#[test]
fn a_run_starts_from_word_vectors_and_needs_their_file_no_more() {
    let _lock = exclusively();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let text = "2 6\nRED 9 8 7 6 5 4\nunheard 1 1 1 1 1 1\n";
    fs::write(at("v.txt"), text).unwrap();
    let setting = format!("model.text.vectors={}", at("v.txt").display());
    let still = [
        &setting[..],
        "base.first.learning_rate=1e-9",
        "base.second.learning_rate=1e-9",
        "optimizer.learning_rate=1e-9",
    ];
    let go = |folder: Folder, interrupter| {
        let options = options(folder, &at("scenes"));
        VisualSemantic::run(&small(&still), &options, interrupter).unwrap()
    };
    assert!(!is_finished(&go(Folder::New(at("run")), stopped())));
    fs::remove_file(at("v.txt")).unwrap();
    let ended = go(Folder::Resume(at("run")), Interrupter::new());
    assert!(is_finished(&ended));
    let tokenizer = CaptionTokenizer::load(at("run/tokenizer.json"), 48).unwrap();
    let red = tokenizer.token_to_id("red").unwrap() as usize;
    for stage in ["run/base-first", "run/base-second", "run"] {
        let words = &parameters(&at(stage))["text.words.weight"];
        let words: Vec<f32> = words.iter().collect();
        for (id, row) in words.chunks(6).enumerate() {
            if id == red {
                let expected = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0];
                let close = row.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4);
                assert!(close, "{stage}: {row:?}");
            } else {
                let is_random = row.iter().all(|value| value.abs() < 0.101);
                assert!(is_random, "{stage}: {row:?}");
            }
        }
    }
    assert!(at("run/base-first/word_vectors.safetensors").is_file());
}
