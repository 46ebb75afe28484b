//! Runs of any system on the made-up pairs.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Int, Tensor};
use burn::train::Interrupter;
use burn_contrastive::workers::{self, Workers};
use burn_contrastive_examples::training::config::TrainingConfig;
use burn_contrastive_examples::training::progress::{Extent, Lines};
use burn_contrastive_examples::training::strategy::Ending;
use burn_contrastive_examples::training::system::{Item, System, SystemConfig};
use burn_contrastive_examples::training::trainer::{Loaders, Start, Trained, train};

use crate::pairs::{BATCHES, Event, OfPair, Page, Pairs, Validation};

/// The fingerprint of the made-up pairs.
pub const DATA: &str = "pairs";

/// Burn has one random generator per process, which initialization and dropout use, so tests that
/// train run one at a time.
pub fn exclusively() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn go_on<S: System>(
    config: &TrainingConfig<S::Config>,
    run: &Path,
    start: Start<S>,
    event: Event,
    interrupter: Interrupter,
    page: Page,
) -> anyhow::Result<Trained<S>>
where
    Item<S>: OfPair,
{
    let shard = config.division(&Device::flex(), 1).pairs;
    let data = Pairs {
        event,
        ..Pairs::new(shard)
    };
    *data.next.lock().unwrap() = start.state.cursor;
    let extent = Extent {
        first_step: start.state.step,
        total_steps: config
            .shared
            .schedule
            .total_steps(BATCHES, config.shared.accumulation),
        pairs_a_step: 8 * config.shared.accumulation,
    };
    let loaders = Loaders {
        fingerprint: DATA.to_string(),
        train: Arc::new(data),
        batches_per_epoch: BATCHES,
        valid: Arc::new(Validation(Pairs::new(shard))),
    };
    train(
        config,
        run,
        start,
        loaders,
        Box::new(Lines::new(page, extent, 2)),
        interrupter,
        Arc::default(),
    )
}

pub fn from_scratch<C: SystemConfig>(
    config: &TrainingConfig<C>,
    run: &Path,
    event: Event,
    interrupter: Interrupter,
) -> anyhow::Result<Trained<C::System>>
where
    Item<C::System>: OfPair,
{
    let start = Start::fresh(config, &Device::flex()).unwrap();
    go_on(config, run, start, event, interrupter, Page::default())
}

pub fn start_again<C: SystemConfig>(
    config: &TrainingConfig<C>,
    run: &Path,
) -> anyhow::Result<Start<C::System>> {
    let start = Start::resumed(config, DATA, run, &Device::flex())?;
    Ok(start.expect("there is a checkpoint"))
}

pub fn resume<C: SystemConfig>(config: &TrainingConfig<C>, run: &Path) -> Trained<C::System>
where
    Item<C::System>: OfPair,
{
    let start = start_again(config, run).unwrap();
    go_on(
        config,
        run,
        start,
        Event::None,
        Interrupter::new(),
        Page::default(),
    )
    .unwrap()
}

#[derive(Default)]
struct Bits(Vec<u32>);

impl ModuleVisitor for Bits {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0
            .extend(param.val().into_data().iter::<f32>().map(f32::to_bits));
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        let data = param.val().into_data();
        self.0.extend(data.iter::<i32>().map(|value| value as u32));
    }
}

/// All parameters, those that are not trained too.
pub fn bits<M: Module>(model: &M) -> Vec<u32> {
    let mut visitor = Bits::default();
    model.visit(&mut visitor);
    visitor.0
}

/// Interrupts a run while it reads batch `at`, resumes it, and compares with an uninterrupted run.
pub fn resumed_equals_uninterrupted<C: SystemConfig>(config: &TrainingConfig<C>, at: usize)
where
    Item<C::System>: OfPair,
{
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let expected = from_scratch(config, &whole, Event::None, Interrupter::new()).unwrap();
    assert_eq!(expected.ending, Ending::Finished);
    assert_eq!(expected.history.steps.len(), 12);

    let interrupter = Interrupter::new();
    let first = from_scratch(
        config,
        &parts,
        Event::Interrupt(at, interrupter.clone()),
        interrupter,
    )
    .unwrap();
    let Ending::Interrupted(checkpoint) = &first.ending else {
        panic!("the interruption was not noticed: {:?}", first.ending);
    };
    assert!(
        checkpoint.join("model.bpk").is_file(),
        "{}",
        checkpoint.display()
    );
    let done = first.history.steps.len();
    assert_eq!(
        done,
        at / config.shared.accumulation + 1,
        "an interrupted run must finish its step and stop"
    );
    assert_eq!(first.history.steps, expected.history.steps[..done]);

    let rest = resume(config, &parts);
    assert_eq!(rest.ending, Ending::Finished);
    assert_eq!(rest.history, expected.history);
    assert!(
        bits(&rest.model) == bits(&expected.model),
        "the parameters differ"
    );
}

/// What each of `count` threads makes of `f`.
pub fn together<R: Send>(count: usize, f: impl Fn(Arc<dyn Workers>) -> R + Sync) -> Vec<R> {
    let f = &f;
    thread::scope(|scope| {
        let workers = workers::threads(count).into_iter();
        let started: Vec<_> = workers.map(|w| scope.spawn(move || f(w))).collect();
        started.into_iter().map(|t| t.join().unwrap()).collect()
    })
}
