//! Runs in stages, killed in each of them: they go on to the results of one that was left alone.

use std::io::{BufRead, BufReader};
use std::process::Command;

use super::program::{
    ABLATION, ALBEF, Answer, Count, FINETUNE, IT_CONTRAST, NLVR2, Place, Program, RADIOGRAPH,
    SWEEP, VISUAL_SEMANTIC, VQA, metrics, parameters, questions, signal, spawn, statements,
    studies, table,
};

/// A run in the folder `run`, which is killed.
struct Killed<'a> {
    program: Program,
    /// The words behind the program that start it.
    start: &'a [&'a str],
    /// Settings.
    pairs: &'a [&'a str],
    /// Its folder, and those of its stages.
    runs: &'a [&'a str],
}

impl Killed<'_> {
    fn start(&self, place: &Place) -> Command {
        let arguments = [self.start, &["--output", "run", "--lines-every", "1"]].concat();
        let mut command = place.small_run(self.program, &arguments);
        let pairs = ["checkpoints.every=1"];
        command.args(
            pairs
                .iter()
                .chain(self.pairs)
                .flat_map(|pair| ["--set", pair]),
        );
        command
    }

    fn resume(&self, place: &Place) -> Command {
        place.run(self.program, ["--lines-every", "1", "--resume", "run"])
    }

    /// Kills it whenever it comes to one of the lines, and lets it end; another one is left alone.
    fn check(&self, count: &mut Count, lines: &[&str], prepare: impl Fn(&Place)) {
        let [alone, place] = [Place::new(), Place::new()];
        prepare(&alone);
        prepare(&place);
        count.taken("alone", &Answer::of(&mut self.start(&alone)));
        for line in lines {
            let mut command = if place.join("run/config.json").exists() {
                self.resume(&place)
            } else {
                self.start(&place)
            };
            let mut child = spawn(&mut command);
            let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
            let found = output.find(|found| found.as_ref().unwrap().contains(line));
            assert!(found.is_some(), "{line} was not reached");
            signal(&child, "-KILL");
            child.wait().unwrap();
            count.survived();
        }
        count.taken("resumed", &Answer::of(&mut self.resume(&place)));
        for run in self.runs {
            let [killed, alone] = [&place, &alone].map(|place| place.join(run));
            for key in [
                "curves",
                "retrieval",
                "facts",
                "accuracy",
                "answers",
                "sweeps",
                "tables",
            ] {
                let [killed, alone] = [&killed, &alone].map(|run| metrics(run)[key].clone());
                // Paths of images are in folders of their own.
                let same = killed == alone || key == "answers";
                assert!(same, "{run}, {key}: {killed}, alone {alone}");
            }
            if killed.join("checkpoints").exists() {
                assert!(parameters(&killed) == parameters(&alone), "{run}");
            }
        }
    }
}

/// SRCL: its teacher is trained first.
#[test]
fn srcl_and_its_teacher() {
    let run = Killed {
        program: ALBEF,
        start: &["--data", "table.csv", "--objective", "srcl"],
        pairs: &["teacher.steps=7", "schedule.steps=9"],
        runs: &["run/teacher", "run"],
    };
    let lines = [
        "Stage: teacher",
        "step 2/7",
        "step 5/7",
        "For programs: ",
        "step 1/9",
        "step 4/9",
        "step 9/9",
    ];
    run.check(&mut Count::new("kill -9 of srcl"), &lines, |place| {
        table(place, "");
    });
}

/// A teacher that all share, and one run after another.
#[test]
fn sweep() {
    let run = Killed {
        program: SWEEP,
        start: &[
            "--data",
            "table.csv",
            "--objective",
            "srcl",
            "--thresholds",
            "0.4",
        ],
        pairs: &["teacher.steps=5", "schedule.steps=4"],
        runs: &["run/teacher", "run/threshold-0.4", "run/srcl", "run"],
    };
    let lines = [
        "step 3/5",
        "Run 1 of 2",
        "step 2/4",
        "For programs: ",
        "Run 2 of 2",
        "step 3/4",
    ];
    run.check(&mut Count::new("kill -9 of sweep"), &lines, |place| {
        table(place, "");
    });
}

/// Text assignment first, from a pretrained run, which is not needed any more once both began.
#[test]
fn nlvr2_and_its_text_assignment() {
    let run = Killed {
        program: NLVR2,
        start: &["--init", "albef", "--data", "statements.json"],
        pairs: &["assignment.steps=7", "schedule.steps=9"],
        runs: &["run/text-assignment", "run"],
    };
    let lines = [
        "Stage: text-assignment",
        "step 1/7",
        "step 4/7",
        "For programs: ",
        "step 1/9",
        "step 4/9",
        "step 9/9",
    ];
    run.check(&mut Count::new("kill -9 of nlvr2"), &lines, |place| {
        table(place, "");
        statements(place);
        place.finished(ALBEF, "albef", &[]);
    });
}

#[test]
fn vqa() {
    let run = Killed {
        program: VQA,
        start: &["--init", "albef", "--data", "questions.json"],
        pairs: &["schedule.steps=9"],
        runs: &["run"],
    };
    let lines = ["Before training", "step 1/9", "step 5/9"];
    run.check(&mut Count::new("kill -9 of vqa"), &lines, |place| {
        table(place, "");
        questions(place);
        place.finished(ALBEF, "albef", &[]);
    });
}

/// The tower that its regions come from, and the file of them, come first.
#[test]
fn it_contrast_its_tower_and_its_regions() {
    let run = Killed {
        program: IT_CONTRAST,
        start: &["--data", "table.csv"],
        pairs: &["regions.tower.steps=7", "schedule.steps=9"],
        runs: &["run/clip", "run"],
    };
    let lines = [
        "Stage: clip",
        "step 2/7",
        "step 5/7",
        "For programs: ",
        "step 1/9",
        "step 4/9",
        "step 9/9",
    ];
    let mut count = Count::new("kill -9 of it-contrast");
    let prepare = |place: &Place| {
        table(place, "");
    };
    run.check(&mut count, &lines, prepare);
    // Of a run of its own: it may come to this before the end of its tower has killed it.
    run.check(&mut count, &["Regions: "], prepare);
}

/// A tower and regions that all share, and one run after another.
#[test]
fn ablation() {
    let run = Killed {
        program: ABLATION,
        start: &["--data", "table.csv"],
        pairs: &["regions.tower.steps=4", "schedule.steps=3"],
        runs: &[
            "run/clip",
            "run/base",
            "run/synthesis",
            "run/noise",
            "run/both",
            "run",
        ],
    };
    let lines = [
        "step 2/4",
        "Regions: ",
        "Run 1 of 4",
        "step 2/3",
        "For programs: ",
        "Run 3 of 4",
        "step 1/3",
        "Run 4 of 4",
    ];
    run.check(&mut Count::new("kill -9 of ablation"), &lines, |place| {
        table(place, "");
    });
}

/// Both phases of the base network come first.
#[test]
fn visual_semantic_and_its_base_network() {
    let run = Killed {
        program: VISUAL_SEMANTIC,
        start: &["--data", "table.csv"],
        pairs: &[
            "base.first.schedule.steps=6",
            "base.second.schedule.steps=5",
            "schedule.steps=9",
        ],
        runs: &["run/base-first", "run/base-second", "run"],
    };
    let lines = [
        "Stage: base-first",
        "step 2/6",
        "step 6/6",
        "For programs: ",
        "Stage: base-second",
        "step 3/5",
        "For programs: ",
        "Before training",
        "step 1/9",
        "step 4/9",
        "step 9/9",
    ];
    let mut count = Count::new("kill -9 of visual-semantic");
    run.check(&mut count, &lines, |place| {
        table(place, "");
    });
}

#[test]
fn radiograph() {
    let run = Killed {
        program: RADIOGRAPH,
        start: &["--data", "studies.json"],
        pairs: &["schedule.steps=9"],
        runs: &["run"],
    };
    let lines = ["Before training", "step 1/9", "step 5/9", "step 9/9"];
    run.check(&mut Count::new("kill -9 of radiograph"), &lines, |place| {
        table(place, "");
        studies(place);
    });
}

#[test]
fn radiograph_finetune() {
    let run = Killed {
        program: FINETUNE,
        start: &["--init", "radiograph", "--data", "studies.json"],
        pairs: &["schedule.steps=9"],
        runs: &["run"],
    };
    let lines = ["Before training", "step 1/9", "step 5/9"];
    run.check(&mut Count::new("kill -9 of finetune"), &lines, |place| {
        table(place, "");
        studies(place);
        place.finished_on(RADIOGRAPH, "radiograph", "studies.json", &[]);
    });
}
