use super::*;
use crate::models::DualEncoderConfig;
use crate::systems::clip::ClipConfig;
use crate::training::objective::TrainingObjective;

type TrainingConfig = super::TrainingConfig<ClipConfig>;

use burn_contrastive::objective::Value::Number;

fn load(pairs: &[&str]) -> Result<TrainingConfig> {
    let pairs: Vec<_> = pairs.iter().map(ToString::to_string).collect();
    TrainingConfig::load(None, &pairs)
}

#[test]
fn the_effective_configuration_reads_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let config = load(&[
        "optimizer.learning_rate=3e-4",
        "schedule.epochs=7",
        "model=vit-b-16",
    ])
    .unwrap();
    assert_eq!(config.shared.schedule.epochs, Some(7));
    assert_eq!(config.system.model, DualEncoderConfig::vit_b_16());
    config.write(&path).unwrap();
    let read = TrainingConfig::read(&path).unwrap();
    assert_eq!(read.to_value().unwrap(), config.to_value().unwrap());
}

#[test]
fn an_objective_is_known_by_its_name_and_has_its_own_settings() {
    let name = |config: &TrainingConfig| match &config.system.objective {
        TrainingObjective::InfoNce(_) => "info-nce, all settings",
        TrainingObjective::Named(config) => config.name(),
    };
    let parameter = |config: &TrainingConfig, parameter| match &config.system.objective {
        TrainingObjective::Named(config) => config.get(parameter),
        TrainingObjective::InfoNce(_) => None,
    };
    let config = load(&["objective.logit_scale.temperature=0.05"]).unwrap();
    assert_eq!(name(&config), "info-nce, all settings");

    let config = load(&["objective=vse", "objective.margin=0.3"]).unwrap();
    assert_eq!(name(&config), "vse");
    assert_eq!(parameter(&config, "margin"), Some(Number(0.3)));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.json");
    fs::write(
        &path,
        r#"{"objective": {"objective": "siglip", "bias": -5}}"#,
    )
    .unwrap();
    let config = TrainingConfig::load(Some(&path), &[]).unwrap();
    assert_eq!(name(&config), "siglip");
    assert_eq!(parameter(&config, "bias"), Some(Number(-5.0)));
    assert_eq!(parameter(&config, "scale"), Some(Number(10.0)));
    config.write(&path).unwrap();
    assert_eq!(
        TrainingConfig::read(&path).unwrap().system.objective,
        config.system.objective
    );

    for (pairs, expected) in [
        (&["objective=infonce"][..], "did you mean `info-nce`?"),
        (
            &["objective=vse", "objective.margn=1"],
            "there is no setting objective.margn; did you mean objective.margin?",
        ),
        (
            &["objective=vse", "objective.margin=-1"],
            "`margin` is -1, it must be finite and at least 0",
        ),
    ] {
        let error = format!("{:#}", load(pairs).unwrap_err());
        assert!(error.contains(expected), "{pairs:?}: {error}");
    }
}

#[test]
fn pairs_win_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.json");
    fs::write(&path, r#"{"seed": 5, "schedule": {"steps": 9}}"#).unwrap();
    let config = TrainingConfig::load(Some(&path), &["seed=6".to_string()]).unwrap();
    assert_eq!((config.shared.seed, config.shared.schedule.steps), (6, 9));
}

#[test]
fn errors_name_the_file_and_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.json");
    fs::write(&path, "{\n\"optimiser\": {}}").unwrap();
    let error = format!("{:#}", TrainingConfig::load(Some(&path), &[]).unwrap_err());
    assert!(
        error.contains("mine.json: line 2") && error.contains("did you mean optimizer?"),
        "{error}"
    );

    for (pair, expected) in [
        (
            "model=vit-l-14",
            "there is no preset `vit-l-14`; there are tiny, vit-b-32, vit-b-16",
        ),
        (
            "model.image.pooling=max",
            "unknown variant `max`, expected one of `token`, `mean`, `last`",
        ),
        (
            "model.image.heads=5",
            "model: image.width = 96 must be a multiple of image.heads = 5",
        ),
        (
            "model.image.patch_size=7",
            "model: image.image_size = 64 must be a multiple",
        ),
        (
            "model.embedding=0",
            "model: embedding = 0 must be in 1..=65536",
        ),
        (
            "model.text.width=18446744073709551612",
            "model: text.width = 18446744073709551612 must be in 1..=65536",
        ),
        (
            r#"model={"image": {"width": 65536}, "text": {"layers": 1000}}"#,
            "model: about 1.5e11 parameters",
        ),
        ("data.batch_size=1", "data.batch_size must be at least 2"),
        (
            "optimizer.beta_1=2",
            "optimizer.beta_1 = 2 must be in [0, 1)",
        ),
        (
            "optimizer.beta_2=1",
            "optimizer.beta_2 = 1 must be in [0, 1)",
        ),
        (
            "optimizer.epsilon=-1",
            "optimizer.epsilon = -1 must be positive",
        ),
        ("optimizer.epsilon=1e60", "optimizer.epsilon = inf must be"),
        (
            "optimizer.weight_decay=-1",
            "optimizer.weight_decay = -1 must be",
        ),
        (
            "schedule.epochs=soon",
            "schedule.epochs: invalid type: string",
        ),
        ("schedule.steps=null", "schedule.steps: invalid type: null"),
        (
            "sharding.mode=parallel",
            "sharding.mode: unknown variant `parallel`, expected one of `auto`, `keep`",
        ),
        (
            "sharding.pairs=0",
            "sharding.pairs must be at least 1, or null",
        ),
        ("sharding.pairs=-1", "sharding.pairs: invalid value"),
        (
            "sharding.at_once=0",
            "sharding.at_once must be at least 1, or null",
        ),
        (
            r#"sharding={"mode": "recompute", "at_once": 2}"#,
            "set sharding.at_once to 1 or null, or sharding.mode to keep",
        ),
        (
            "data.scenes.train=18446744073709551615",
            "at most 1,000,000",
        ),
        ("schedule.steps=0", "schedule.steps must be at least 1"),
        (
            "optimizer.learning_rate=0",
            "optimizer.learning_rate = 0 must be positive",
        ),
    ] {
        let error = format!("{:#}", load(&[pair]).unwrap_err());
        assert!(error.contains(expected), "{pair}: {error}");
    }
}
