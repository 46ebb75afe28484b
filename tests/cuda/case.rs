//! One objective at one precision, evaluated on the device: what runs in a process of its own.

use std::io::Write;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_contrastive::objective::{AnyConfig, Features, ObjectiveConfig};
use burn_contrastive::pairwise::Precision;
use burn_contrastive::similarity::SimilarityConfig;

/// Names the case to the process that evaluates it.
pub const VARIABLE: &str = "BURN_CONTRASTIVE_CASE";

pub const PRECISIONS: [&str; 3] = ["highest", "high", "medium"];

/// Pairs, width and memory budget: an odd width that CUDA's own allocations pad, in several blocks;
/// and a batch of the usual size in one block.
const SHAPES: [[usize; 3]; 2] = [[300, 20, 1], [4096, 512, 1 << 30]];

/// Batches of a large training, of bf16, in many blocks; each in a process of its own, whose pools
/// hold nothing else.
const LARGE: [usize; 2] = [65_536, 1 << 30];
pub const LARGE_WIDTHS: [usize; 2] = [512, 768];

#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub precision: String,
    /// In place of the usual shapes a large one of this width.
    pub large: Option<usize>,
}

/// The names of the catalogue.
pub fn names() -> Vec<&'static str> {
    let names = AnyConfig::names().into_iter();
    names.filter(|&name| name != "sum").collect()
}

impl Case {
    pub fn new(name: &str, precision: &str) -> Self {
        Self {
            name: name.into(),
            precision: precision.into(),
            large: None,
        }
    }

    pub fn large(name: &str, precision: &str, width: usize) -> Self {
        Self {
            large: Some(width),
            ..Self::new(name, precision)
        }
    }

    pub fn text(&self) -> String {
        let width = self.large.unwrap_or(0);
        format!("{}-{}-{width}", self.name, self.precision)
    }

    /// From its text.
    fn read(text: &str) -> Self {
        let mut parts = text.rsplitn(3, '-');
        let mut next = || parts.next().expect("NAME-PRECISION-WIDTH");
        let (width, precision, name) = (next(), next(), next());
        let width = width.parse().expect("a width");
        Self {
            large: (width > 0).then_some(width),
            ..Self::new(name, precision)
        }
    }

    /// Whether its similarities are products of the engine, whose precision can be chosen.
    pub fn has_products(&self) -> bool {
        self.name != "alignment"
    }
}

/// Evaluates the case of the environment at every shape, twice: the second evaluation is as the
/// thousandth, with its kernels compiled and the pools empty.
#[test]
#[ignore = "a part of the others"]
fn one() {
    log::set_logger(&Said).expect("no other logger");
    log::set_max_level(log::LevelFilter::Debug);
    let case = Case::read(&std::env::var(VARIABLE).expect("a case"));
    let device = Device::cuda(0);
    let tracked = device.clone().autodiff();
    let (shapes, dtype) = match case.large {
        Some(width) => (vec![[LARGE[0], width, LARGE[1]]], DType::BF16),
        None => (SHAPES.to_vec(), DType::F32),
    };
    for [pairs, width, budget] in shapes {
        let features = features(pairs, width, (&tracked, dtype));
        let similarity = SimilarityConfig::new()
            .with_memory_budget(budget)
            .with_precision(match case.precision.as_str() {
                "highest" => Precision::Highest,
                "high" => Precision::High,
                "medium" => Precision::Medium,
                other => panic!("no precision is called {other}"),
            });
        let objective = configured(&case.name, similarity).init(&tracked);
        for turn in ["first", "second"] {
            device.sync().expect("what was dropped is free");
            device.memory_cleanup();
            device.sync().expect("memory is given back");
            mark(&format!("begin {turn} {pairs}"));
            let features = Features {
                image: features.image.clone().require_grad(),
                text: features.text.clone().require_grad(),
                ..features.clone()
            };
            let loss = objective.forward(&features);
            let gradients = loss.backward();
            // A kernel that does not compile is an error of whoever reads what depends on it.
            loss.into_data();
            for embeddings in [&features.image, &features.text] {
                embeddings.grad(&gradients).expect("a gradient").into_data();
            }
            mark("end");
        }
    }
}

/// Writes what the engine says of its passes into the driver's log.
struct Said;

impl log::Log for Said {
    fn enabled(&self, of: &log::Metadata) -> bool {
        of.target() == "burn_contrastive::bytes"
    }

    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            mark(&format!("bytes {}", record.args()));
        }
    }

    fn flush(&self) {}
}

fn mark(text: &str) {
    let path = std::env::var_os("STUB_CUDA_LOG").expect("a log");
    let log = std::fs::OpenOptions::new().append(true).open(path);
    writeln!(log.expect("the log opens"), "mark {text}").expect("the log takes a line");
}

fn configured(name: &str, similarity: SimilarityConfig) -> ObjectiveConfig {
    let mut config = ObjectiveConfig::named(name).expect("an objective of the catalogue");
    macro_rules! set {
        ($($kind:ident)+) => {
            match &mut config.kind {
                $(AnyConfig::$kind(config) => config.similarity = similarity,)+
                AnyConfig::WeightedSum(_) => unreachable!("it has no defaults"),
            }
        };
    }
    set!(InfoNce ConVse Mvn NtXent Decoupled Srcl FalseNegativeRemoval InfoCmr MultiPositive
        ImageTextContrastive Vse VsePlusPlus ConVsePlusPlus MaxMargin SigLip ReCo Orthogonality
        Alignment Uniformity BarlowTwins);
    config
}

/// Everything that an objective may need; three pairs share a label. Only labels have values.
fn features(pairs: usize, width: usize, (device, dtype): (&Device, DType)) -> Features {
    let of = |rows: usize| Tensor::<2>::empty([rows, width], (device, dtype));
    let some = |rows| Some(of(rows));
    let labels: Vec<i32> = (0..pairs as i32).map(|pair| pair / 3).collect();
    let labels = |count: usize| {
        let labels = TensorData::new(labels[..count].to_vec(), [count]);
        Some(Tensor::<1, Int>::from_data(labels, device))
    };
    let queued = pairs.div_ceil(10);
    let hard = || Some(Tensor::<3>::empty([pairs, 2, width], (device, dtype)));
    Features {
        teacher_image: some(pairs),
        teacher_text: some(pairs),
        queue_image: some(queued),
        queue_text: some(queued),
        queue_teacher_image: some(queued),
        queue_teacher_text: some(queued),
        queue_image_label: labels(queued),
        queue_text_label: labels(queued),
        momentum_image: some(pairs),
        momentum_text: some(pairs),
        noise: some(128),
        hard_image: hard(),
        hard_text: hard(),
        label: labels(pairs),
        ..Features::new(of(pairs), of(pairs))
    }
}
