//! Runs that were damaged, changed or moved.

use std::fs;

use super::program::{Answer, CLIP, Count, Place, files, table};

/// A folder with a finished run of two steps in `run`.
fn finished() -> Place {
    let place = Place::new();
    table(&place, "");
    place.finished(CLIP, "run", &[]);
    place
}

fn resume(place: &Place, pairs: &[&str]) -> Answer {
    let sets = pairs.iter().flat_map(|pair| ["--set", pair]);
    Answer::of(&mut place.clip(["--resume", "run"].into_iter().chain(sets)))
}

#[test]
fn a_refused_change_leaves_the_run_as_it_was() {
    let mut count = Count::new("changes on resume");
    let place = finished();
    let before = files(&place.join("run"));
    for (pair, reason) in [
        (
            "model.embedding=8",
            "model.embedding = 4, it cannot go on with 8",
        ),
        ("model.image.width=16", "model.image.width = 8"),
        ("model.image.dropout=0.5", "model.image.dropout"),
        ("data.batch_size=8", "data.batch_size = 4"),
        ("data.batch_size=64", "fewer than one batch"),
        ("data.scenes.seed=4", "data.scenes.seed = 0"),
        ("data.flip=0.5", "data.flip"),
        ("data.path=absent", "absent"),
        ("data.tokenizer=absent", "data.tokenizer"),
        ("seed=9", "seed = 0"),
        ("accumulation=2", "accumulation = 1"),
        ("objective=siglip", "objective"),
        ("objective.lambda=0.9", "there is no setting"),
        ("optimizer.weight_decay=0.9", "optimizer.weight_decay"),
        ("optimizer.beta_1=2", "optimizer.beta_1 = 2"),
        ("schedule.steps=0", "schedule.steps must be at least 1"),
        ("sharding.pairs=0", "sharding.pairs must be at least 1"),
        ("sharding.at_once=0", "sharding.at_once must be at least 1"),
        ("sharding.mode=all", "sharding.mode: unknown variant"),
    ] {
        count.refused(pair, &resume(&place, &[pair]), reason);
        assert!(
            files(&place.join("run")) == before,
            "{pair} changed the run"
        );
    }
    for (pairs, said) in [
        (&["schedule.steps=3"][..], "schedule.steps = 3, so far 2"),
        (
            &["schedule.steps=4", "optimizer.max_grad_norm=null"],
            "optimizer.max_grad_norm = null, so far 1",
        ),
        (
            &["schedule.steps=5", "optimizer.learning_rate=1e-4"],
            "optimizer.learning_rate = 0.0001, so far 0.001",
        ),
        (
            &["schedule.steps=6", "sharding.mode=recompute"],
            "sharding.mode = \"recompute\", so far \"auto\"",
        ),
    ] {
        let answer = resume(&place, pairs);
        count.taken(pairs[0], &answer);
        assert!(answer.out.contains(said), "{}", answer.out);
    }
    let metrics = fs::read_to_string(place.join("run/metrics.json")).unwrap();
    let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    assert_eq!(metrics["changes"].as_array().unwrap().len(), 7, "{metrics}");
    assert_eq!(metrics["curves"]["loss"].as_array().unwrap().len(), 6);
}

#[test]
fn a_damaged_run_is_refused_with_the_file() {
    let mut count = Count::new("damaged runs");
    let place = finished();
    let run = place.join("run");
    let checkpoint = run.join("checkpoints/step-000002");
    for name in ["model.bpk", "optimizer.bpk", "state.json", "SHA256SUMS"] {
        let file = checkpoint.join(name);
        let whole = fs::read(&file).unwrap();
        let middle = whole.len() / 2;
        let mut flipped = whole.clone();
        flipped[middle] ^= 1;
        let mut zeroed = whole.clone();
        zeroed[middle..].fill(0);
        for damaged in [flipped, zeroed, whole[..middle].to_vec(), Vec::new()] {
            fs::write(&file, damaged).unwrap();
            count.refused(name, &resume(&place, &[]), "step-000002");
        }
        fs::remove_file(&file).unwrap();
        count.refused(name, &resume(&place, &[]), name);
        fs::write(&file, whole).unwrap();
    }
    let whole = fs::read(run.join("config.json")).unwrap();
    for damaged in [
        &b""[..],
        b"{}",
        b"{\"seed\": 0}",
        b"nothing",
        &whole[..whole.len() / 2],
    ] {
        fs::write(run.join("config.json"), damaged).unwrap();
        count.refused("config.json", &resume(&place, &[]), "config.json");
    }
    fs::write(run.join("config.json"), whole).unwrap();

    let tokenizer = fs::read_to_string(run.join("tokenizer.json")).unwrap();
    fs::write(run.join("tokenizer.json"), "{}").unwrap();
    count.refused("tokenizer.json", &resume(&place, &[]), "tokenizer.json");
    fs::write(
        run.join("tokenizer.json"),
        tokenizer.replace("\"picture\"", "\"pictore\""),
    )
    .unwrap();
    count.refused("another tokenizer", &resume(&place, &[]), "not those");
    fs::write(run.join("tokenizer.json"), tokenizer).unwrap();

    let table = fs::read_to_string(place.join("table.csv")).unwrap();
    let other = table.replace("picture number 3", "picture number three");
    fs::write(place.join("table.csv"), other).unwrap();
    count.refused("other captions", &resume(&place, &[]), "not those");
    fs::write(place.join("table.csv"), table).unwrap();
    count.taken("mended", &resume(&place, &[]));
}

#[test]
fn a_run_resumes_from_another_folder_and_in_another_place() {
    let mut count = Count::new("moved runs");
    let place = finished();
    let elsewhere = Place::new();
    let run = place.join("run");
    let mut command = elsewhere.clip(["--set", "schedule.steps=3", "--resume"]);
    count.taken("from elsewhere", &Answer::of(command.arg(&run)));
    let moved = place.join("with a space & 'quotes'");
    fs::rename(&run, &moved).unwrap();
    let mut command = elsewhere.clip(["--set", "schedule.steps=4", "--resume"]);
    count.taken("renamed", &Answer::of(command.arg(&moved)));
    // The data may move too, as long as they are the same.
    fs::create_dir(place.join("data")).unwrap();
    for (name, _) in files(place.path()) {
        fs::rename(place.join(&name), place.join("data").join(&name)).unwrap();
    }
    let path = format!("data.path={}", place.join("data").display());
    let mut command = elsewhere.clip(["--set", "schedule.steps=5", "--set", &path, "--resume"]);
    count.taken("data moved", &Answer::of(command.arg(&moved)));
}

#[test]
fn files_of_somebody_else_and_failed_starts() {
    let mut count = Count::new("folders");
    let place = Place::new();
    table(&place, "");
    let start = |pairs: &[&str]| {
        let mut command = place.small(&["--output", "run", "--data", "table.csv"]);
        command.args(pairs.iter().flat_map(|pair| ["--set", pair]));
        Answer::of(&mut command)
    };
    for name in [
        "report.html",
        "metrics.json",
        "tokenizer.json",
        "config.json",
        "checkpoints/x",
    ] {
        place.write(&format!("run/{name}"), "mine");
        let first = name.split('/').next().unwrap();
        count.refused(name, &start(&[]), &format!("`{first}` that no run wrote"));
        assert_eq!(fs::read(place.join("run").join(name)).unwrap(), b"mine");
        fs::remove_dir_all(place.join("run")).unwrap();
    }
    // What fails leaves nothing in the way of the next start.
    place.write("bad.json", "{}");
    for (pair, reason) in [
        ("data.batch_size=100", "fewer than one batch"),
        ("data.tokenizer=bad.json", "bad.json"),
        ("model.text.vocabulary=10", "model.text.vocabulary"),
        ("model.text.context=2", "context"),
    ] {
        count.refused(pair, &start(&[pair]), reason);
        assert!(!place.join("run").exists(), "{pair}");
    }
    place.write("run/notes.txt", "mine");
    count.taken("beside a note", &start(&[]));
    assert!(place.join("run/notes.txt").exists());
    count.refused("again", &start(&[]), "already holds a run");
    // Without a checkpoint it begins anew, whichever way it is asked.
    for arguments in [&["--resume", "run"][..], &["--output", "run"]] {
        fs::remove_dir_all(place.join("run/checkpoints")).unwrap();
        let mut command = if arguments[0] == "--resume" {
            place.clip(arguments)
        } else {
            place.small(&[arguments, &["--data", "table.csv"]].concat())
        };
        count.taken(arguments[0], &Answer::of(&mut command));
    }
}
