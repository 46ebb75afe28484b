//! The folder of a run: one program at a time, and nothing of anybody else's is overwritten.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::checkpoint::Checkpoints;
use super::run::CONFIG_FILE;
use super::trainer::START;
use crate::lock::Lock;

/// What a run writes besides its checkpoints.
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";
const WRITTEN: [&str; 6] = [
    CONFIG_FILE,
    TOKENIZER_FILE,
    START,
    "checkpoints",
    "report.html",
    "metrics.json",
];
/// The lock, which also tells a folder of this program's from any other.
const LOCK: &str = ".lock";

/// A run's folder, which no other program writes to meanwhile.
pub(super) struct RunFolder {
    pub path: PathBuf,
    _lock: Lock,
}

impl RunFolder {
    /// Checks that a run could begin in the folder `path`, which need not exist. A run that failed
    /// before its first checkpoint, and before that of a stage, does not count.
    pub fn check(path: &Path) -> Result<()> {
        ensure!(
            Checkpoints::last_of(path)?.is_none() && !(Self::began(path) && has_stage(path)),
            "{} already holds a run; choose another --output, or go on with it: --resume {0}",
            path.display()
        );
        if !path.join(LOCK).exists()
            && let Some(name) = WRITTEN.iter().find(|name| path.join(name).exists())
        {
            bail!(
                "{} holds a `{name}` that no run wrote; choose another --output",
                path.display()
            );
        }
        Ok(())
    }

    /// Whether a run began in the folder `path`, by this program and not by anybody else.
    pub fn began(path: &Path) -> bool {
        path.join(CONFIG_FILE).is_file() && path.join(LOCK).exists()
    }

    /// Begins a run in the folder `path`.
    pub fn begin(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| not_made(path))?;
        Self::check(path)?;
        let folder = Self::lock(path)?;
        // Again, now that nobody else can begin one.
        Self::check(path)?;
        Ok(folder)
    }

    /// Begins a run in a new folder, `path` or that with a number behind it.
    pub fn begin_new(path: &Path) -> Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| not_made(parent))?;
        }
        for number in 1.. {
            let mut path = path.to_path_buf();
            if number > 1 {
                path.as_mut_os_string().push(format!("-{number}"));
            }
            match fs::create_dir(&path) {
                Ok(()) => return Self::lock(&path),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| not_made(&path)),
            }
        }
        unreachable!("there are enough numbers");
    }

    /// Goes on with the run in the folder `path`.
    pub fn resume(path: &Path) -> Result<Self> {
        let config = path.join(CONFIG_FILE);
        ensure!(config.is_file(), "there is no run: no {}", config.display());
        Self::lock(path)
    }

    /// Takes back what was written at the beginning of a run that failed before its first step,
    /// and the folder where nothing else is in it. What an earlier stage has done stays, and with
    /// it the run, which can be resumed.
    pub fn take_back(self) {
        if has_stage(&self.path)
            || Checkpoints::last_of(&self.path).is_ok_and(|last| last.is_some())
        {
            return;
        }
        // What cannot be removed is in nobody's way: the next run begins over it.
        for name in [CONFIG_FILE, TOKENIZER_FILE, LOCK] {
            let _ = fs::remove_file(self.path.join(name));
        }
        let _ = fs::remove_dir(&self.path);
    }

    fn lock(path: &Path) -> Result<Self> {
        let lock = Lock::now(&path.join(LOCK))?;
        let lock = lock.with_context(|| {
            format!(
                "another program is working on the run {}: wait for it, or stop it",
                path.display()
            )
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            _lock: lock,
        })
    }
}

/// Whether a run has a stage that began.
fn has_stage(run: &Path) -> bool {
    fs::read_dir(run).is_ok_and(|entries| {
        let mut entries = entries.flatten();
        entries.any(|entry| RunFolder::began(&entry.path()))
    })
}

fn not_made(path: &Path) -> String {
    format!("the run's folder {} could not be made", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<RunFolder>) -> String {
        format!("{:#}", result.err().unwrap())
    }

    #[test]
    fn a_folder_is_one_programs_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let held = RunFolder::begin(&path).unwrap();
        fs::write(path.join(CONFIG_FILE), "{}").unwrap();
        for again in [RunFolder::begin(&path), RunFolder::resume(&path)] {
            assert!(message(again).contains("another program is working"));
        }
        drop(held);
        assert!(RunFolder::resume(&path).is_ok());
    }

    #[test]
    fn a_run_that_failed_before_its_first_checkpoint_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        drop(RunFolder::begin(&path).unwrap());
        fs::write(path.join(CONFIG_FILE), "{}").unwrap();
        fs::create_dir_all(path.join("checkpoints/.unfinished-step-000001")).unwrap();
        drop(RunFolder::begin(&path).unwrap());
        fs::create_dir_all(path.join("checkpoints/step-000001")).unwrap();
        assert!(message(RunFolder::begin(&path)).contains("already holds a run"));
        fs::remove_dir_all(path.join("checkpoints")).unwrap();
        stage(&path);
        assert!(message(RunFolder::begin(&path)).contains("already holds a run"));
        // Runs in a folder that is none itself.
        fs::remove_file(path.join(CONFIG_FILE)).unwrap();
        assert!(RunFolder::begin(&path).is_ok());
    }

    /// A stage of the run in the folder `path` that began.
    fn stage(path: &Path) {
        let stage = path.join("teacher");
        drop(RunFolder::begin(&stage).unwrap());
        fs::write(stage.join(CONFIG_FILE), "{}").unwrap();
    }

    #[test]
    fn a_start_that_is_taken_back_leaves_what_is_not_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let begin = || {
            let run = RunFolder::begin(&path).unwrap();
            fs::write(path.join(CONFIG_FILE), "{}").unwrap();
            fs::write(path.join(TOKENIZER_FILE), "{}").unwrap();
            run
        };
        begin().take_back();
        assert!(!path.exists());

        let run = begin();
        fs::write(path.join("notes.txt"), "mine").unwrap();
        run.take_back();
        let left: Vec<_> = fs::read_dir(&path).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");

        let checkpoint = |path: &Path| {
            fs::create_dir_all(path.join("checkpoints/step-000001")).unwrap();
        };
        let done: [&dyn Fn(&Path); 2] = [&stage, &checkpoint];
        for done in done {
            let run = begin();
            done(&path);
            run.take_back();
            assert!(path.join(CONFIG_FILE).exists());
            fs::remove_dir_all(&path).unwrap();
        }
    }

    #[test]
    fn files_of_somebody_else_are_not_overwritten() {
        for name in WRITTEN {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("notes.txt"), "mine").unwrap();
            assert!(RunFolder::check(folder.path()).is_ok());
            fs::write(folder.path().join(name), "mine").unwrap();
            let error = message(RunFolder::begin(folder.path()));
            assert!(
                error.contains(&format!("`{name}` that no run wrote")),
                "{error}"
            );
        }
    }

    #[test]
    fn new_runs_of_the_same_second_get_folders_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs/clip");
        let names: Vec<_> = (0..3)
            .map(|_| RunFolder::begin_new(&path).unwrap().path)
            .collect();
        let expected = ["clip", "clip-2", "clip-3"].map(|name| path.with_file_name(name));
        assert_eq!(names, expected);
    }
}
