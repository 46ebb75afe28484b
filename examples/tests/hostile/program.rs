//! The programs under test, and what counts as an answer of it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use burn::store::{BurnpackStore, ModuleStore, bridge};
use burn::tensor::TensorData;
use serde_json::{Value, json};
use tempfile::TempDir;

pub use super::programs::*;

/// Longer than anything here takes, on a slow machine and without optimisation.
const HANGS: Duration = Duration::from_secs(180);

/// A folder to run the program in.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A program with these arguments, here.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: Program,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(program.file);
        let arguments: Vec<OsString> = arguments.into_iter().map(|a| a.as_ref().into()).collect();
        command
            .args(program.command)
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// A program with the settings of a small run, and these arguments.
    pub fn small_run(&self, program: Program, arguments: &[&str]) -> Command {
        let mut command = self.run(program, arguments);
        command.args(program.small.iter().flat_map(|pair| ["--set", pair]));
        command
    }

    /// `clip` with these arguments, here.
    pub fn clip<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        self.run(CLIP, arguments)
    }

    /// `clip` with the settings of a small run, and these arguments.
    pub fn small(&self, arguments: &[&str]) -> Command {
        self.small_run(CLIP, arguments)
    }

    /// A run of two steps in the folder `run`, of the settings `pairs` on top of a small one's.
    pub fn finished(&self, program: Program, run: &str, pairs: &[&str]) {
        self.finished_on(program, run, "table.csv", pairs);
    }

    /// Likewise, on those data.
    pub fn finished_on(&self, program: Program, run: &str, data: &str, pairs: &[&str]) {
        let mut command = self.small_run(program, &["--output", run, "--data", data]);
        command.args(pairs.iter().flat_map(|pair| ["--set", pair]));
        let answer = Answer::of(&mut command);
        assert!(answer.status.success(), "{}", answer.err);
    }
}

/// What a shell script says that runs the command as `"$@"`, and then says `first`; the folder
/// `disk` is a file system of that size, of which `disk/filler` takes so many bytes. `None` where
/// the machine lets nobody make one.
pub fn in_disk(
    place: &Place,
    size: &str,
    filled: usize,
    script: &str,
    command: &Command,
) -> Option<Answer> {
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs disk || exit 77\n\
         head -c {filled} /dev/zero > disk/filler\n{script}"
    );
    let mut all = Command::new("unshare");
    all.args([
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        &script,
        "sh",
    ])
    .arg(command.get_program())
    .args(command.get_args())
    .current_dir(place.path());
    let answer = Answer::of(all.stdin(Stdio::null()));
    let is_mounted = answer.out.contains("first");
    if !is_mounted {
        println!("no file system could be mounted: {}", answer.err);
    }
    is_mounted.then_some(answer)
}

/// The files in a folder, by their names.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// The results of a run.
pub fn metrics(run: &Path) -> Value {
    serde_json::from_slice(&fs::read(run.join("metrics.json")).unwrap()).unwrap()
}

/// The parameters of a run's last checkpoint, by their paths.
pub fn parameters(run: &Path) -> BTreeMap<String, TensorData> {
    let folders = fs::read_dir(run.join("checkpoints")).unwrap();
    let last = folders.map(|entry| entry.unwrap().path()).max().unwrap();
    let mut store = BurnpackStore::from_file(last.join("model.bpk"));
    let all = store.get_all_tensors().unwrap();
    let all = all.iter().map(|(path, tensor)| {
        let data = bridge::to_data(tensor).unwrap();
        (path.clone(), data)
    });
    all.collect()
}

/// How a program ended.
pub struct Answer {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Answer {
    /// Runs a program to its end.
    pub fn of(command: &mut Command) -> Self {
        Self::of_child(spawn(command))
    }

    /// Waits for the end of a program.
    pub fn of_child(mut child: Child) -> Self {
        let read = |stream: Option<Box<dyn Read + Send>>| {
            thread::spawn(move || {
                let mut text = Vec::new();
                if let Some(mut stream) = stream {
                    let _ = stream.read_to_end(&mut text);
                }
                String::from_utf8_lossy(&text).into_owned()
            })
        };
        let out = read(child.stdout.take().map(|stream| Box::new(stream) as _));
        let err = read(child.stderr.take().map(|stream| Box::new(stream) as _));
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > HANGS {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("it hangs; it wrote: {}", err.join().unwrap());
            }
            thread::sleep(Duration::from_millis(2));
        };
        let [out, err] = [out, err].map(|text| text.join().unwrap());
        Self { status, out, err }
    }
}

/// Starts a program whose output is read.
pub fn spawn(command: &mut Command) -> Child {
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().unwrap()
}

pub fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    // It may have ended before.
    let _ = Command::new("kill").args([name, &id]).status();
}

/// Counts answers.
pub struct Count {
    what: &'static str,
    tried: usize,
    refused: usize,
}

impl Count {
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            tried: 0,
            refused: 0,
        }
    }

    /// Checks that a program neither panicked nor was killed, and that it said why it failed.
    pub fn answered(&mut self, input: &str, answer: &Answer) -> bool {
        let Answer { status, out, err } = answer;
        self.tried += 1;
        assert_eq!(status.signal(), None, "{input}: {err}");
        for text in [out, err] {
            assert!(!text.contains("panicked"), "{input}: {text}");
        }
        let refused = !status.success();
        if refused {
            self.refused += 1;
            assert!(err.contains("error"), "{input}: no reason: {err}{out}");
            assert!(err.len() < 4_000, "{input}: endless: {err}");
        }
        refused
    }

    /// That it ended as it was made to, which the caller has checked.
    pub fn survived(&mut self) {
        self.tried += 1;
    }

    /// That it was refused, for this reason.
    pub fn refused(&mut self, input: &str, answer: &Answer, reason: &str) {
        let refused = self.answered(input, answer);
        assert!(refused, "{input} was taken: {}", answer.out);
        // 2 where clap reads the arguments.
        let code = answer.status.code();
        assert!(matches!(code, Some(1 | 2)), "{input}: {code:?}");
        assert!(
            answer.err.contains(reason),
            "{input}: not `{reason}`: {}",
            answer.err
        );
    }

    /// That it was taken.
    pub fn taken(&mut self, input: &str, answer: &Answer) {
        let refused = self.answered(input, answer);
        assert!(!refused, "{input}: {}", answer.err);
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let Self {
            what,
            tried,
            refused,
        } = self;
        let taken = *tried - *refused;
        println!("{what}: {tried} tried, {refused} refused with a message, {taken} taken");
    }
}

/// Writes a picture of one colour.
pub fn picture(file: &Path, colour: [u8; 3]) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let picture = image::RgbImage::from_pixel(12, 9, image::Rgb(colour));
    picture.save(file).unwrap();
}

/// A table of 12 images with its files: 8 to train on, 2 to validate, 2 to test; the rows of
/// `more` behind.
pub fn table(place: &Place, more: &str) -> PathBuf {
    let mut text = String::from("image,caption,split\n");
    for index in 0..12 {
        let name = format!("{index:02}.png");
        let shade = 20 * index as u8;
        picture(&place.join(&name), [shade, 255 - shade, 99]);
        let split = split(index);
        text += &format!("{name},picture number {index},{split}\n");
    }
    place.write("table.csv", text + more)
}

/// `questions.json` about the images of [`table`], split as they are.
pub fn questions(place: &Place) -> PathBuf {
    let rows: Vec<_> = (0..12).map(question).collect();
    place.write("questions.json", json!({ "questions": rows }).to_string())
}

/// A question about the `index`-th image.
pub fn question(index: usize) -> Value {
    let answer = ["red", "two", "no"][index % 3];
    json!({"image": format!("{index:02}.png"), "question": format!("what number {index}"),
           "answer": answer, "kind": answer, "split": split(index)})
}

/// `statements.json` about the images of [`table`], split as they are.
pub fn statements(place: &Place) -> PathBuf {
    let rows: Vec<_> = (0..12).map(statement).collect();
    place.write("statements.json", json!({ "statements": rows }).to_string())
}

/// A statement about the `index`-th image and another one.
pub fn statement(index: usize) -> Value {
    let images = [index, (index + 5) % 12].map(|image| format!("{image:02}.png"));
    json!({"images": images, "text": format!("picture number {index}"),
           "label": index.is_multiple_of(2), "split": split(index)})
}

/// `studies.json` of the images of [`table`], split as they are.
pub fn studies(place: &Place) -> PathBuf {
    let rows: Vec<_> = (0..12).map(study).collect();
    let all = json!({"classes": ["third", "even"], "studies": rows});
    place.write("studies.json", all.to_string())
}

/// A study of the `index`-th image.
pub fn study(index: usize) -> Value {
    json!({"images": [format!("{index:02}.png")], "sentences": [format!("picture number {index}")],
           "labels": {"third": index % 3 == 1, "even": index.is_multiple_of(2)},
           "split": split(index)})
}

fn split(index: usize) -> &'static str {
    match index {
        0..8 => "train",
        8..10 => "val",
        _ => "test",
    }
}
