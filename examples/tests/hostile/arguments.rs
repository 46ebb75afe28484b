//! Arguments and settings.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use serde_json::Value;

use super::program::{
    ALBEF, Answer, CLIP, Count, IT_CONTRAST, Place, Program, VISUAL_SEMANTIC, table,
};

#[test]
fn arguments_are_refused_by_name() {
    let mut count = Count::new("arguments");
    let place = Place::new();
    let long = "x".repeat(100_000);
    let long_pair = format!("{long}=1");
    for (arguments, reason) in [
        (&["--nothing"][..], "unexpected argument"),
        (&["file"], "unrecognized subcommand 'file'"),
        (&["--set"], "a value is required"),
        (&["--set", "seed"], "expected key=value"),
        (&["--set", "=1"], "there is no setting"),
        (&["--set", "=="], "there is no setting"),
        (&["--set", "."], "expected key=value"),
        (&["--set", "..=1"], "there is no setting"),
        (&["--set", &long_pair], "there is no setting xxx"),
        (&["--set", &long], "expected key=value"),
        (&["--objective", &long], "there is no objective"),
        (&["--objective", ""], "there is no objective"),
        (&["--objective", "infonce"], "did you mean `info-nce`?"),
        (&["--objective", "srcl"], "or `alpha` = 0"),
        (
            &["--objective", "vse", "--set", "objective.margin=-1"],
            "margin",
        ),
        (
            &["--objective", "vse", "--set", "objective.margin=big"],
            "margin",
        ),
        (
            &["--objective", "siglip", "--set", "objective.scale=0"],
            "`scale`",
        ),
        (&["--device", "tpu"], "no backend is called `tpu`"),
        (&["--device", ""], "no backend is called"),
        (&["--device", "flex:0"], "one device"),
        (&["--device", "cuda:x"], "not the number"),
        (&["--workers", "0"], "0 is not in 1..=256"),
        (&["--workers", "65535"], "is not in 1..=256"),
        (&["--workers", "-1"], "unexpected argument"),
        (&["--workers", "two"], "invalid digit"),
        (&["--lines-every", "-3"], "unexpected argument"),
        (&["--lines-every", "1e3"], "invalid digit"),
        (&["--config", "absent.json"], "absent.json"),
        (&["--config", "."], "--config"),
        (&["--data", "absent"], "absent"),
        (&["--data", "/dev/null"], "expected a Karpathy folder"),
        (&["--data", ""], "error"),
        (&["--resume", "absent"], "there is no run"),
        (&["--resume", "."], "there is no run"),
        (&["--resume", "/dev/null"], "there is no run"),
        (&["--resume", "a", "--output", "b"], "cannot be used with"),
        (&["--resume", "a", "--config", "b"], "cannot be used with"),
        (&["--resume", "a", "--data", "b"], "cannot be used with"),
        (&["--output", "/dev/null"], "/dev/null"),
        (&["--output", "/proc/nothing"], "/proc/nothing"),
    ] {
        // A small set of scenes for what gets as far as that.
        let mut command = place.clip(arguments);
        for pair in [
            "scenes.train=16",
            "scenes.validation=4",
            "scenes.test=4",
            "batch_size=4",
        ] {
            command.args(["--set", &format!("data.{pair}")]);
        }
        let input = arguments.join(" ").chars().take(80).collect::<String>();
        count.refused(&input, &Answer::of(&mut command), reason);
    }
    for option in [
        "--set",
        "--objective",
        "--device",
        "--data",
        "--resume",
        "--output",
    ] {
        let bytes = OsString::from_vec(vec![b'a', 0xff, b'=', 0xfe]);
        let mut command = place.small(&["--set", "data.scenes.train=16"]);
        command.args([
            "--set",
            "data.scenes.validation=4",
            "--set",
            "data.scenes.test=4",
        ]);
        let answer = Answer::of(command.arg(option).arg(bytes));
        let refused = count.answered(option, &answer);
        // A path need not be UTF-8.
        assert_eq!(refused, option != "--output", "{option}: {}", answer.out);
    }
}

/// Every setting with every value of a list: whatever is taken must print as valid settings.
#[test]
fn settings_of_any_value_are_taken_or_refused_by_name() {
    any_value(CLIP);
}

#[test]
fn settings_of_albef_of_any_value_are_taken_or_refused_by_name() {
    any_value(ALBEF);
}

fn any_value(program: Program) {
    let mut count = Count::new("settings");
    let place = Place::new();
    let printed = Answer::of(&mut place.run(program, ["--print-config"]));
    let defaults: Value = serde_json::from_str(&printed.out).unwrap();
    let mut keys = Vec::new();
    collect("", &defaults, &mut keys);
    assert!(keys.len() > 40, "{keys:?}");
    let values = [
        "null",
        "-1",
        "0",
        "1e999",
        "-0.5",
        "18446744073709551616",
        "abc",
        "[]",
        "{}",
        "true",
        "\"\\u0000\"",
    ];
    for key in &keys {
        for value in values {
            let pair = format!("{key}={value}");
            let answer = Answer::of(&mut place.run(program, ["--print-config", "--set", &pair]));
            if count.answered(&pair, &answer) {
                // The name, or at least its last part; or that of the objective, whose settings
                // decide what it needs.
                let last = key.rsplit('.').next().unwrap();
                let names = [last, "objective image-text-contrastive needs"];
                let named = names.iter().any(|name| answer.err.contains(name));
                assert!(named, "{pair}: {}", answer.err);
            } else {
                let taken: Value = serde_json::from_str(&answer.out).unwrap();
                assert!(taken.is_object(), "{pair}");
            }
        }
    }
}

fn collect(key: &str, value: &Value, keys: &mut Vec<String>) {
    match value {
        Value::Object(group) => {
            for (name, value) in group {
                let dotted = format!("{key}.{name}");
                collect(dotted.trim_start_matches('.'), value, keys);
            }
        }
        _ => keys.push(key.to_string()),
    }
}

#[test]
fn settings_files_are_taken_or_refused_with_their_name() {
    let mut count = Count::new("settings files");
    let place = Place::new();
    let deep = "[".repeat(100_000);
    let wide = format!("{{\"{}\": 1}}", "k".repeat(100_000));
    for (text, reason) in [
        ("", "mine.json"),
        ("{", "mine.json"),
        ("[]", "expected an object"),
        ("7", "expected an object"),
        ("null", "expected an object"),
        ("{\"seed\": 1} x", "mine.json"),
        ("{\"seed\": \"\"}", "a whole number"),
        ("{\"seed\": 1e30}", "a whole number"),
        ("{\"model\": 3}", "a group of settings"),
        ("{\"model\": \"vit-l-14\"}", "no preset"),
        ("{\"model\": {}, \"modle\": {}}", "did you mean model?"),
        ("{\"objective\": {\"objective\": 5}}", "objective"),
        ("{\"objective\": {\"objective\": \"sum\"}}", "sum"),
        (
            "{\"objective\": {\"objective\": \"sum\", \"terms\": []}}",
            "sum",
        ),
        ("{\"data\": {\"mean\": [1, 2]}}", "data.mean"),
        ("{\"data\": {\"std\": [0, 0, 0]}}", "std"),
        ("{\"data\": {\"path\": 5}}", "data.path"),
        ("\u{0}", "mine.json"),
        (&deep, "mine.json"),
        (&wide, "there is no setting kkk"),
    ] {
        let file = place.write("mine.json", text);
        let mut command = place.clip(["--print-config", "--config"]);
        let input: String = text.chars().take(60).collect();
        count.refused(&input, &Answer::of(command.arg(file)), reason);
    }
    let not_utf_8 = place.write("mine.json", b"{\"seed\": \xff}");
    let mut command = place.clip(["--print-config", "--config"]);
    count.refused(
        "not UTF-8",
        &Answer::of(command.arg(not_utf_8)),
        "mine.json",
    );
    let marked = place.write(
        "mine.json",
        "\u{feff}{\"optimizer\": {\"max_grad_norm\": null}}",
    );
    let mut command = place.clip(["--print-config", "--config"]);
    count.taken("a byte-order mark", &Answer::of(command.arg(marked)));
}

/// `visual-semantic features` and `it-contrast regions`.
#[test]
fn what_writes_one_file_by_one_run_says_what_it_needs_and_leaves_none() {
    let mut count = Count::new("files by the weights of a run");
    let place = Place::new();
    table(&place, "");
    place.finished(CLIP, "clip", &[]);
    place.finished(VISUAL_SEMANTIC, "vse", &["base.second=null"]);
    for (program, command, run) in [
        (VISUAL_SEMANTIC, "features", "vse"),
        (IT_CONTRAST, "regions", "clip"),
    ] {
        let write = |arguments: &[&str]| {
            let start = [command, "--data", "table.csv"];
            Answer::of(&mut place.run(program, [&start[..], arguments].concat()))
        };
        let whole = ["--init", run, "--output", "file"];
        for (arguments, reason) in [
            (&whole[..2], "needs --output FILE"),
            (&whole[2..], "needs --init RUN"),
            (
                &["--init", "absent", "--output", "file"],
                "no run in absent",
            ),
            (
                &["--init", "table.csv", "--output", "file"],
                "no run in table.csv",
            ),
            (&["--init", run, "--output", run], "exists already"),
            (&["--init", run, "--output", "/dev/null"], "exists already"),
            (
                &["--init", run, "--output", "no/file"],
                "no/file: could not be written",
            ),
            (
                &[&whole[..], &["--seeds", "2"]].concat(),
                "leave out --grid and --seeds",
            ),
            (
                &[&whole[..], &["--grid", "seed=1,2"]].concat(),
                "leave out --grid",
            ),
            (
                &[&whole[..], &["--resume", run]].concat(),
                "cannot be used with",
            ),
        ] {
            count.refused(&arguments.join(" "), &write(arguments), reason);
            assert!(!place.join("file").exists());
        }
        let part = format!("{run}:model");
        let answer = write(&["--init", &part, "--output", "file"]);
        count.refused(&part, &answer, "takes a whole run");
        count.taken(command, &write(&whole));
        std::fs::remove_file(place.join("file")).unwrap();
    }
    let other = ["--init", "vse", "--output", "file"];
    let mut regions = place.run(IT_CONTRAST, [&["regions"][..], &other].concat());
    count.refused("vse", &Answer::of(&mut regions), "it is no run of clip");
}

#[test]
fn options_of_regions_are_refused_by_name() {
    let mut count = Count::new("options of it-contrast regions");
    let place = Place::new();
    table(&place, "");
    place.finished(CLIP, "clip", &[]);
    for (option, value) in [("--per-image", "0"), ("--jitter", "2"), ("--jitter", "NaN")] {
        let start = [
            "regions", "--init", "clip", "--output", "file", option, value,
        ];
        let answer = Answer::of(&mut place.run(IT_CONTRAST, start));
        count.refused(value, &answer, "must be in");
        assert!(!place.join("file").exists());
    }
}
