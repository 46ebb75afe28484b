//! The program under test, and what counts as an answer of it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything here takes, on a slow machine and without optimisation.
const HANGS: Duration = Duration::from_secs(180);

/// Settings of a run of a few small steps.
pub const SMALL: &[&str] = &[
    "data.batch_size=4",
    "model.image.image_size=16",
    "model.image.patch_size=8",
    "model.image.width=8",
    "model.image.heads=1",
    "model.image.layers=1",
    "model.text.width=8",
    "model.text.heads=1",
    "model.text.layers=1",
    "model.text.vocabulary=300",
    "model.text.context=12",
    "model.embedding=4",
    "schedule.steps=2",
    "schedule.warmup_steps=0",
];

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

    /// `clip` with these arguments, here.
    pub fn clip<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clip"));
        let arguments: Vec<OsString> = arguments.into_iter().map(|a| a.as_ref().into()).collect();
        command
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// `clip` with the settings of a small run, and these arguments.
    pub fn small(&self, arguments: &[&str]) -> Command {
        let mut command = self.clip(arguments);
        command.args(SMALL.iter().flat_map(|pair| ["--set", pair]));
        command
    }
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
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::of_child(piped.spawn().unwrap())
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
        picture(&place.join(&name), [20 * index, 255 - 20 * index, 99]);
        let split = match index {
            0..8 => "train",
            8..10 => "val",
            _ => "test",
        };
        text += &format!("{name},picture number {index},{split}\n");
    }
    place.write("table.csv", text + more)
}
