//! Where results go: files, links, pipes and devices, and what is never overwritten.

use std::fs;
use std::process::Output;

use safetensors::tensor::Dtype;

use super::files::{Files, everything};

fn plain() -> Files {
    let (mut tensors, _) = everything(Dtype::F32);
    tensors.retain(|name, _| ["image", "text"].contains(&&**name));
    let files = Files::new(&tensors);
    fs::write(files.path("list.json"), r#"[{"objective": "alignment"}]"#).unwrap();
    files
}

/// Evaluates one objective.
fn audit(files: &Files, arguments: &[&str]) -> Output {
    files.audit(&[&["--objectives", "list.json"], arguments].concat())
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn folders_and_what_is_in_none_are_refused_by_name() {
    let files = plain();
    fs::create_dir(files.path("folder")).unwrap();
    for path in [
        "folder/none/out.json",
        "pairs.safetensors/o",
        "folder",
        "new/",
    ] {
        let output = audit(&files, &["--json", path]);
        assert_eq!(output.status.code(), Some(2));
        assert!(errors(&output).contains(path), "{}", errors(&output));
    }
    assert_eq!(files.names(), ["folder", "list.json", "pairs.safetensors"]);
}

#[test]
fn no_input_and_no_other_output_is_overwritten_by_any_of_its_names() {
    let files = plain();
    let inputs = ["pairs.safetensors", "list.json"].map(|name| (name, files.path(name)));
    let before = inputs.clone().map(|(_, path)| fs::read(path).unwrap());
    fs::create_dir(files.path("folder")).unwrap();
    let mut names = vec!["pairs.safetensors", "./pairs.safetensors", "list.json"];
    names.push("folder/../list.json");
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;

        fs::hard_link(files.path("pairs.safetensors"), files.path("hard")).unwrap();
        symlink("pairs.safetensors", files.path("soft")).unwrap();
        symlink("../list.json", files.path("folder/soft")).unwrap();
        symlink(".", files.path("here")).unwrap();
        symlink("later.json", files.path("dangling")).unwrap();
        names.extend(["hard", "soft", "folder/soft", "here/pairs.safetensors"]);
    }
    let everything = files.names();
    for name in names {
        for option in ["--json", "--gradients", "--report"] {
            let output = audit(&files, &[option, name]);
            assert_eq!(output.status.code(), Some(2), "{name}");
            let refusal = "every file needs a path of its own";
            assert!(errors(&output).contains(refusal), "{}", errors(&output));
        }
    }
    let mut others = vec![["later.json", "./later.json"], ["later.json", "later.json"]];
    if cfg!(unix) {
        others.push(["later.json", "dangling"]);
        others.push(["here/later.json", "later.json"]);
    }
    for [json, report] in others {
        let output = audit(&files, &["--json", json, "--report", report]);
        assert_eq!(output.status.code(), Some(2), "{json} {report}");
    }
    assert_eq!(inputs.map(|(_, path)| fs::read(path).unwrap()), before);
    assert_eq!(files.names(), everything);
}

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::os::unix::fs::{FileTypeExt, symlink};
    use std::process::{Command, Stdio};
    use std::thread;

    use serde_json::Value;

    use super::*;

    fn is_json(bytes: &[u8]) -> bool {
        serde_json::from_slice::<Value>(bytes).is_ok()
    }

    #[test]
    fn a_symbolic_link_stays_and_what_it_leads_to_is_replaced() {
        let files = plain();
        fs::create_dir(files.path("folder")).unwrap();
        fs::write(files.path("folder/old.json"), "old").unwrap();
        symlink("folder/old.json", files.path("link")).unwrap();
        symlink("folder/new.html", files.path("dangling")).unwrap();
        let before = files.names();
        let output = audit(&files, &["--json", "link", "--report", "dangling"]);
        assert!(output.status.success(), "{}", errors(&output));
        for link in ["link", "dangling"] {
            assert!(fs::symlink_metadata(files.path(link)).unwrap().is_symlink());
        }
        assert!(is_json(&fs::read(files.path("folder/old.json")).unwrap()));
        assert!(files.path("folder/new.html").is_file());
        assert_eq!(files.names(), before);
    }

    #[test]
    fn what_is_no_file_is_written_to_and_stays_what_it_is() {
        let files = plain();
        let fifo = files.path("fifo");
        assert!(
            Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        let reader = thread::spawn({
            let fifo = fifo.clone();
            move || fs::read(fifo).unwrap()
        });
        let output = audit(&files, &["--json", "fifo", "--report", "/dev/null"]);
        assert!(output.status.success(), "{}", errors(&output));
        assert!(is_json(&reader.join().unwrap()));
        assert!(fs::metadata(fifo).unwrap().file_type().is_fifo());
        let null = fs::metadata("/dev/null").unwrap().file_type();
        assert!(null.is_char_device());
    }

    #[test]
    fn results_on_standard_output_have_it_to_themselves() {
        let files = plain();
        let output = audit(&files, &["--json", "/dev/stdout"]);
        assert!(output.status.success(), "{}", errors(&output));
        assert!(is_json(&output.stdout));
        assert!(errors(&output).contains("12 pairs of 12 images"));

        // The file that the shell made, not another in its place.
        let redirected = File::create(files.path("out.json")).unwrap();
        let mut command = files.program();
        command.args(["--embeddings", "pairs.safetensors"]);
        command.args(["--objectives", "list.json", "--json", "out.json"]);
        let status = command.stdout(redirected).stderr(Stdio::null()).status();
        assert!(status.unwrap().success());
        assert!(is_json(&fs::read(files.path("out.json")).unwrap()));
    }

    #[test]
    fn a_reader_that_leaves_ends_the_printing_alone() {
        let files = plain();
        let mut command = files.program();
        command.args(["--embeddings", "pairs.safetensors"]);
        command.args(["--objectives", "list.json", "--json", "out.json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
        assert!(!errors(&output).contains("error"), "{}", errors(&output));
        assert!(is_json(&fs::read(files.path("out.json")).unwrap()));
    }

    #[test]
    fn a_full_disk_is_an_error_and_no_panic() {
        let files = plain();
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let run = |arguments: &[&str], out: Stdio, err: Stdio| {
            let mut command = files.program();
            command.args(["--embeddings", "pairs.safetensors"]);
            command.args(["--objectives", "list.json"]).args(arguments);
            command.stdout(out).stderr(err).output().unwrap()
        };
        let output = run(&["--json", "out.json"], full().into(), Stdio::piped());
        assert_eq!(output.status.code(), Some(2));
        let expected = "error: standard output could not be written";
        assert!(errors(&output).contains(expected), "{}", errors(&output));
        assert!(is_json(&fs::read(files.path("out.json")).unwrap()));

        let output = run(&[], Stdio::piped(), full().into());
        assert!(output.status.success());
        assert!(!output.stdout.is_empty());

        let both = ["--json", "/dev/full", "--report", "o.html"];
        let output = run(&both, Stdio::null(), Stdio::piped());
        assert_eq!(output.status.code(), Some(2));
        let expected = "/dev/full: could not be written";
        assert!(errors(&output).contains(expected), "{}", errors(&output));
        assert!(!files.path("o.html").exists());
    }

    #[test]
    fn a_pipe_may_hold_the_objectives_but_not_the_embeddings() {
        let files = plain();
        let run = |embeddings: &str, objectives: &str, input: &str| {
            let input = File::open(files.path(input)).unwrap();
            let mut cat = Command::new("cat");
            let mut cat = cat.stdin(input).stdout(Stdio::piped()).spawn().unwrap();
            let mut command = files.program();
            command.args(["--embeddings", embeddings, "--objectives", objectives]);
            command.stdin(cat.stdout.take().unwrap());
            let output = command.output().unwrap();
            cat.wait().unwrap();
            output
        };
        let output = run("pairs.safetensors", "/dev/stdin", "list.json");
        assert!(output.status.success(), "{}", errors(&output));
        let output = run("/dev/stdin", "list.json", "pairs.safetensors");
        assert_eq!(output.status.code(), Some(2));
        let expected = "/dev/stdin is not a regular file";
        assert!(errors(&output).contains(expected), "{}", errors(&output));
    }
}
