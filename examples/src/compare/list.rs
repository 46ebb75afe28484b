//! What is done and what is left, for a person to read.

use super::contenders::{ALL, Contender};
use super::plan::{Left, compared};
use super::results::Results;
use super::trial::Stage;
use crate::report::html::duration;

/// A table of the runs of each objective, done of all, and the time that the rest will take on
/// `jobs` cores.
pub fn list(results: &Results, takes_part: impl Fn(&Contender) -> bool, jobs: usize) -> String {
    let protocol = &results.setup.protocol;
    let left = Left::of(results, &takes_part);
    let mut text = format!("{:24}{:>10}", "objective", "search");
    for rate in &protocol.rates {
        text += &format!("{:>8}", format!("{} %", 100.0 * rate));
    }
    text += "   s a run\n";
    for contender in ALL.iter().filter(|one| takes_part(one)) {
        let searched = contender.searched(results).len();
        let open = left.count_of(Stage::Search, contender.name);
        text += &format!(
            "{:24}{:>10}",
            contender.name,
            format!("{}/{searched}", searched - open)
        );
        let seeds = contender.seeds(protocol);
        for &rate in &protocol.rates {
            let trials = (0..seeds).filter_map(|index| compared(results, contender, rate, index));
            let done = trials.filter(|trial| results.run(trial).is_some()).count();
            text += &format!("{:>8}", format!("{done}/{seeds}"));
        }
        let runs = results.runs.iter();
        let seconds: Vec<f64> = runs
            .filter(|run| run.trial.contender == contender.name)
            .map(|run| run.seconds)
            .collect();
        text += &match seconds.len() {
            0 => "         –\n".to_string(),
            count => format!("{:>10.1}\n", seconds.iter().sum::<f64>() / count as f64),
        };
    }
    let failed = results
        .runs
        .iter()
        .filter(|run| run.failure.is_some())
        .count();
    text += &format!("\n{} done, {failed} of them failed; ", results.runs.len());
    text += &format!("{} left", left.count());
    let time = left
        .time(results)
        .map(|time| time.as_secs_f64() / jobs as f64);
    if let Some(time) = time.and_then(duration) {
        text += &format!(", about {time} on {jobs} cores");
    }
    text
}
