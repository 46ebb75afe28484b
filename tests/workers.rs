//! Ten steps of several workers are those of one: threads, and processes that MPI starts.
#![cfg(feature = "flex")]

use std::sync::Arc;
use std::thread;

use burn::module::{Module, Param};
use burn::optim::SgdConfig;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_contrastive::objective::{Features, Objective, ObjectiveConfig};
use burn_contrastive::sharded::{Encoded, Sharding};
use burn_contrastive::workers::{self, Workers};
use proptest::prelude::*;

const OBJECTIVES: [&str; 4] = [
    r#"{"objective": "info-nce"}"#,
    r#"{"objective": "siglip"}"#,
    r#"{"objective": "srcl", "alpha": 0.7, "queue": true}"#,
    r#"{"objective": "barlow-twins"}"#,
];

const PAIRS: usize = 12;

/// Shards of a step, which workers share.
const SHARDS: usize = 4;

fn matrix(rows: usize, columns: usize, phase: f64) -> Tensor<2> {
    let values = (0..rows * columns).map(|i| (i as f64 * 0.61 + phase).sin());
    let data = TensorData::new(values.collect::<Vec<_>>(), [rows, columns]);
    Tensor::from_data(data, (&Device::flex(), DType::F64))
}

#[derive(Module, Debug)]
struct Model {
    image: Param<Tensor<2>>,
    text: Param<Tensor<2>>,
    objective: Objective,
}

impl Model {
    fn new(config: &ObjectiveConfig) -> Self {
        Self {
            image: Param::from_tensor(matrix(5, 4, 1.0).autodiff()),
            text: Param::from_tensor(matrix(5, 4, 2.0).autodiff()),
            objective: config.init(&Device::flex().autodiff()),
        }
    }

    fn embed(&self, [image, text]: [Tensor<2>; 2]) -> [Tensor<2>; 2] {
        [
            image.matmul(self.image.val()).tanh(),
            text.matmul(self.text.val()).tanh(),
        ]
    }
}

/// The losses of ten steps, then the parameters.
fn ten_steps(json: &str, workers: Option<Arc<dyn Workers>>) -> Vec<f64> {
    let config: ObjectiveConfig = serde_json::from_str(json).unwrap();
    let mut model = Model::new(&config);
    let [rank, count] = workers.as_ref().map_or([0, 1], |w| [w.rank(), w.count()]);
    let own = SHARDS * rank / count..SHARDS * (rank + 1) / count;
    let mut sharding = Sharding::recompute();
    if let Some(workers) = workers {
        sharding = sharding.with_workers(workers);
    }
    let mut optimizer = SgdConfig::new().init();
    let mut found = Vec::new();
    for step in 0..10 {
        let size = PAIRS / SHARDS;
        let whole = [3.0, 4.0].map(|phase| matrix(PAIRS, 5, phase + f64::from(step)));
        let shard = |k: usize| {
            let rows = |x: &Tensor<2>| x.clone().narrow(0, k * size, size).autodiff();
            whole.each_ref().map(rows)
        };
        let shards: Vec<_> = own.clone().map(shard).collect();
        let step = sharding.backward(
            &model,
            &shards,
            |model, shard| Encoded::new(model.embed(shard.clone())),
            |embeddings| {
                let [image, text] = embeddings.try_into().unwrap();
                let other = |rows, phase| Some(matrix(rows, 4, phase));
                model.objective.forward(&Features {
                    teacher_image: other(PAIRS, 5.0),
                    teacher_text: other(PAIRS, 6.0),
                    queue_image: other(5, 7.0),
                    queue_text: other(5, 8.0),
                    queue_teacher_image: other(5, 9.0),
                    queue_teacher_text: other(5, 10.0),
                    ..Features::new(image, text)
                })
            },
        );
        found.push(step.loss.into_scalar::<f64>());
        model = optimizer.step(0.05, model, step.gradients);
    }
    for x in [model.image.val(), model.text.val()] {
        found.extend(x.into_data().try_into_vec::<f64>().unwrap());
    }
    found
}

/// What each of `count` threads makes of `f`, by rank.
fn together<R: Send>(count: usize, f: impl Fn(Arc<dyn Workers>) -> R + Sync) -> Vec<R> {
    let f = &f;
    thread::scope(|scope| {
        let workers = workers::threads(count).into_iter();
        let started: Vec<_> = workers.map(|w| scope.spawn(move || f(w))).collect();
        started.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

fn assert_close(found: &[f64], expected: &[f64], name: &str) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let error = (found - expected).abs();
        assert!(
            error <= 1e-10 * (1.0 + expected.abs()),
            "{name}: {found}, alone {expected}"
        );
    }
}

#[test]
fn ten_steps_of_threads_are_those_of_one() {
    for json in OBJECTIVES {
        let alone = ten_steps(json, None);
        for count in [1, 2, 4] {
            let found = together(count, |worker| ten_steps(json, Some(worker)));
            assert_close(&found[0], &alone, &format!("{json} on {count}"));
            assert!(found.iter().all(|other| *other == found[0]), "{json}");
            // One worker takes the path of none.
            assert!(count > 1 || found[0] == alone, "{json}");
        }
    }
}

/// Loss and gradients of one step; each worker has as many of the shards, of these sizes, as
/// `owned` says.
fn one_step(json: &str, sizes: &[usize], owned: &[usize]) -> Vec<Vec<f64>> {
    let run = |worker: Arc<dyn Workers>| {
        let config: ObjectiveConfig = serde_json::from_str(json).unwrap();
        let model = Model::new(&config);
        let before: usize = owned[..worker.rank()].iter().sum();
        let own = before..before + owned[worker.rank()];
        let mut start = 0;
        let shards: Vec<_> = sizes
            .iter()
            .map(|&size| {
                start += size;
                let rows = |phase| {
                    matrix(30, 5, phase)
                        .narrow(0, start - size, size)
                        .autodiff()
                };
                [3.0, 4.0].map(rows)
            })
            .collect();
        let step = Sharding::keep(1).with_workers(worker).backward(
            &model,
            &shards[own],
            |model, shard| Encoded::new(model.embed(shard.clone())),
            |embeddings| {
                let [image, text] = embeddings.try_into().unwrap();
                model.objective.forward(&Features::new(image, text))
            },
        );
        let mut found = vec![step.loss.into_scalar::<f64>()];
        for param in [&model.image, &model.text] {
            let gradient = step.gradients.get::<2>(param.id).unwrap();
            found.extend(gradient.into_data().try_into_vec::<f64>().unwrap());
        }
        found
    };
    together(owned.len(), run)
}

fn property() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(40)
    }
}

proptest! {
    #![proptest_config(property())]

    /// Shards of any size, any number of them on each worker.
    #[test]
    fn any_division_among_workers_gives_the_same_step(
        shards in proptest::collection::vec(proptest::collection::vec(1..4usize, 1..4), 1..4),
        objective in 0..2usize,
    ) {
        let json = OBJECTIVES[objective];
        let owned: Vec<_> = shards.iter().map(Vec::len).collect();
        let sizes = shards.concat();
        let pairs = sizes.iter().sum();
        let alone = one_step(json, &[pairs], &[1]).swap_remove(0);
        let found = one_step(json, &sizes, &owned);
        assert_close(&found[0], &alone, json);
        prop_assert!(found.iter().all(|other| *other == found[0]));
    }
}

/// Tests that run themselves again under `mpirun`.
#[cfg(feature = "mpi")]
mod mpi {
    use std::process::{Command, Output};
    use std::time::{Duration, Instant};
    use std::{env, fs};

    use burn_contrastive::workers::mpi::Mpi;

    use super::*;

    const WORKER: &str = "BURN_CONTRASTIVE_TEST_WORKER";

    /// In a process that MPI has started: that worker. Else what came of starting `count` of them,
    /// each of which runs the test of that name.
    fn worker_or_output(test: &str, count: usize) -> Result<Arc<Mpi>, Output> {
        if env::var_os(WORKER).is_some() {
            return Ok(Mpi::start().unwrap());
        }
        let output = Command::new("mpirun")
            .args(["-n", &count.to_string()])
            .arg(env::current_exe().unwrap())
            .args(["--exact", &format!("mpi::{test}"), "--nocapture"])
            .env(WORKER, "1")
            // As root, and with fewer cores than processes.
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
            .env("OMPI_MCA_rmaps_base_oversubscribe", "true")
            .output();
        Err(output.expect("mpirun, of the packages openmpi-bin or mpich"))
    }

    fn text(output: &Output) -> String {
        let streams = [&output.stdout, &output.stderr];
        let streams = streams.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        streams.concat()
    }

    fn steps_of_processes(test: &str, count: usize) {
        match worker_or_output(test, count) {
            Ok(worker) => {
                assert_eq!(worker.count(), count);
                for json in OBJECTIVES {
                    let found = ten_steps(json, Some(worker.clone()));
                    assert_close(&found, &ten_steps(json, None), json);
                    let bits = found.iter().flat_map(|x| x.to_ne_bytes());
                    let all = worker.gather(&bits.collect::<Vec<_>>()).unwrap();
                    assert!(all.iter().all(|other| *other == all[0]), "{json}");
                }
                // Longer than a message of MPI may be here, to some workers nothing.
                let long = vec![worker.rank() as u8 + 1; 100 << 20];
                let part = |to| if to == 0 { &long[..] } else { &[] };
                let parts: Vec<_> = (0..count).map(part).collect();
                let received = worker.exchange(&parts).unwrap();
                for (from, bytes) in received.iter().enumerate() {
                    let len = if worker.rank() == 0 { long.len() } else { 0 };
                    assert_eq!(bytes.len(), len);
                    assert!(bytes.iter().all(|&byte| byte == from as u8 + 1));
                }
                println!("worker {} is done", worker.rank());
                worker.finish();
            }
            Err(output) => {
                let text = text(&output);
                assert!(output.status.success(), "{text}");
                for rank in 0..count {
                    assert!(text.contains(&format!("worker {rank} is done")), "{text}");
                }
            }
        }
    }

    #[test]
    fn ten_steps_of_two_processes_are_those_of_one() {
        steps_of_processes("ten_steps_of_two_processes_are_those_of_one", 2);
    }

    #[test]
    fn ten_steps_of_four_processes_are_those_of_one() {
        steps_of_processes("ten_steps_of_four_processes_are_those_of_one", 4);
    }

    #[test]
    fn a_process_that_is_killed_ends_the_others_which_name_it() {
        let begun = Instant::now();
        match worker_or_output("a_process_that_is_killed_ends_the_others_which_name_it", 3) {
            Ok(worker) => {
                let rank = worker.rank();
                // `mpirun` would tell the others to end by SIGTERM, which this test does not catch:
                // here a file does, before worker 1 ends.
                worker.on_loss(
                    || fs::exists(gone()).unwrap(),
                    move |lost| println!("worker {rank} says: {lost}"),
                );
                worker.barrier().unwrap();
                if rank == 1 {
                    fs::write(gone(), "").unwrap();
                    thread::sleep(Duration::from_secs(5));
                    std::process::abort();
                }
                ten_steps(OBJECTIVES[0], Some(worker));
                unreachable!("a step without worker 1");
            }
            Err(output) => {
                let _ = fs::remove_file(gone());
                let text = text(&output);
                assert!(!output.status.success(), "{text}");
                assert!(!text.contains("unreachable"), "{text}");
                let said = [0, 2].map(|rank| {
                    let says = format!("worker {rank} says: worker 1 of 0..3 ended, or");
                    text.contains(&says)
                });
                assert!(said.contains(&true), "{text}");
                assert!(begun.elapsed() < Duration::from_secs(20), "{text}");
            }
        }
    }

    /// A file that says that worker 1 has ended.
    fn gone() -> std::path::PathBuf {
        env::temp_dir().join("burn-contrastive-worker-1-has-ended")
    }
}
