//! What a loss costs each of several workers: `cargo bench --features mpi --bench workers`.
//!
//! Starts itself under `mpirun` with 1, 2 and 4 processes, one thread each, and prints for each
//! count the work of a process (its CPU time, so that too few cores do not show), its peak memory
//! beside the embeddings, and what it sends.

#[path = "../tests/counting/mod.rs"]
mod counting;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{env, fs};

use burn::tensor::{Device, Tensor, TensorData};
use burn_contrastive::objective::{Features, ObjectiveConfig};
use burn_contrastive::workers::mpi::Mpi;
use burn_contrastive::workers::{self, Lost, Workers};
use counting::peak_of;

const WORKER: &str = "BURN_CONTRASTIVE_BENCH_WORKER";
const PAIRS: usize = 4096;
const WIDTH: usize = 512;
const REPETITIONS: usize = 5;
const OBJECTIVES: [&str; 3] = ["info-nce", "siglip", "srcl"];

fn main() {
    if env::var_os(WORKER).is_some() {
        return worker();
    }
    println!("{PAIRS} pairs, width {WIDTH}, f32; a process, the mean of {REPETITIONS} repetitions");
    for count in [1, 2, 4] {
        let status = Command::new("mpirun")
            .args(["-n", &count.to_string()])
            .arg(env::current_exe().expect("this program has a path"))
            .env(WORKER, "1")
            .env("RAYON_NUM_THREADS", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
            .env("OMPI_MCA_rmaps_base_oversubscribe", "true")
            .status();
        assert!(status.expect("mpirun is installed").success());
    }
}

fn worker() {
    let mpi = Mpi::start().expect("started by mpirun");
    let counted = Arc::new(Counted {
        inner: mpi.clone(),
        sent: AtomicUsize::new(0),
    });
    let workers: Arc<dyn Workers> = counted.clone();
    let embeddings = embeddings();
    for name in OBJECTIVES {
        let run = || workers::divide(&workers, || loss_and_gradients(name, embeddings.clone()));
        run();
        let sent = counted.sent.swap(0, Relaxed);
        let begun = cpu_seconds();
        (0..REPETITIONS).for_each(|_| run());
        let seconds = (cpu_seconds() - begun) / REPETITIONS as f64;
        let [peak, _] = peak_of(run);
        counted.sent.store(0, Relaxed);
        let mine = [seconds, peak as f64, sent as f64].map(f64::to_ne_bytes);
        let all = mpi.gather(mine.as_flattened()).expect("all are there");
        if mpi.rank() == 0 {
            let value = |bytes: &[u8]| f64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
            let largest = |k: usize| {
                let each = all.iter().map(|bytes| value(&bytes[8 * k..][..8]));
                each.fold(0.0, f64::max)
            };
            println!(
                "{name:10} {} processes: CPU {:6.3} s, memory {:7.1} MiB, sent {:6.1} MiB",
                mpi.count(),
                largest(0),
                largest(1) / f64::from(1 << 20),
                largest(2) / f64::from(1 << 20),
            );
        }
    }
    mpi.finish();
}

/// Images and texts, and what a teacher makes of them.
fn embeddings() -> [Tensor<2>; 4] {
    [1.0, 2.0, 3.0, 4.0].map(|phase: f32| {
        let values = (0..PAIRS * WIDTH).map(|i| (i as f32 * 0.61 + phase).sin());
        let data = TensorData::new(values.collect::<Vec<_>>(), [PAIRS, WIDTH]);
        Tensor::from_data(data, &Device::flex())
    })
}

fn loss_and_gradients(name: &str, [image, text, teacher_image, teacher_text]: [Tensor<2>; 4]) {
    let [image, text] = [image, text].map(|x| x.autodiff().require_grad());
    let config = ObjectiveConfig::named(name).expect("a name");
    let objective = config.init(&image.device());
    let mut features = Features::new(image, text);
    if name == "srcl" {
        features.teacher_image = Some(teacher_image);
        features.teacher_text = Some(teacher_text);
    }
    drop(objective.forward(&features).backward());
}

/// CPU time of this process so far.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit(')').next().expect("a name in brackets");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.map(|x| x.parse::<f64>().expect("a number")).sum();
    // Linux counts in hundredths.
    ticks / 100.0
}

/// Counts the bytes that go to other workers.
#[derive(Debug)]
struct Counted {
    inner: Arc<Mpi>,
    sent: AtomicUsize,
}

impl Workers for Counted {
    fn count(&self) -> usize {
        self.inner.count()
    }

    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn exchange(&self, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>, Lost> {
        let others = parts.iter().enumerate();
        let others = others.filter(|(rank, _)| *rank != self.rank());
        let bytes = others.map(|(_, part)| part.len()).sum();
        self.sent.fetch_add(bytes, Relaxed);
        self.inner.exchange(parts)
    }
}
