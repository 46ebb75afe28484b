//! The CUDA path on a driver that counts (`tests/cuda-on-cpu`): every objective of the catalogue at
//! every precision is compiled, launched and counted, and NVIDIA's `ptxas` compiles what would have
//! run. No number is right or wrong here; layouts, refusals, launches, memory, registers and spills
//! are.
//!
//! `.ci/run cuda` builds the driver, fetches `ptxas` and libdevice, and runs this. The counts stand
//! in docs/benchmarks.md: another count of the engine's is a failure, and so is much more or much
//! less of what Burn's operations add. `UPDATE_COUNTS=1` writes them anew.
#![cfg(feature = "cuda")]

mod bytes;
mod case;
mod log;
mod ptxas;
mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use self::case::{Case, names};
use self::log::Evaluation;
use self::table::Tables;

/// A folder that is new.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("ptx")).unwrap();
    folder
}

/// Evaluates each case in a process of its own, so that its memory is its own, two at a time.
fn evaluated(cases: &[Case], capability: &str, folder: &Path) -> Vec<(Case, Vec<Evaluation>)> {
    two_at_a_time(cases, |case| {
        let log = folder.join(format!("{}.log", case.text()));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "case::one", "--ignored", "--nocapture"])
            .env(case::VARIABLE, case.text())
            .env("STUB_CUDA_LOG", &log)
            .env("STUB_CUDA_PTX", folder.join("ptx"))
            .env("STUB_CUDA_CC", capability);
        said(&mut command, &case.text());
        (case.clone(), log::read(&log))
    })
}

/// What a process says that must succeed.
fn said(command: &mut Command, what: &str) -> String {
    let output = command.output().expect("it starts");
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{what}: {said}");
    said
}

/// What `work` makes of each, on two threads, in no order.
fn two_at_a_time<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let left = Mutex::new(items.iter());
    let done = Mutex::new(Vec::new());
    let work = || {
        while let Some(item) = { left.lock().unwrap().next() } {
            let made = work(item);
            done.lock().unwrap().push(made);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    done.into_inner().unwrap()
}

/// Every objective at every precision, and some at the size of a large training.
fn catalogue() -> Vec<Case> {
    let names = names();
    let each = |name: &&'static str| case::PRECISIONS.map(|precision| Case::new(name, precision));
    let large = ["info-nce", "siglip", "srcl", "con-vse-plus-plus"];
    let large = large.into_iter().flat_map(|name| {
        let widths = case::LARGE_WIDTHS.into_iter();
        widths.map(move |width| Case::large(name, "medium", width))
    });
    names.iter().flat_map(each).chain(large).collect()
}

#[test]
#[ignore = "needs the driver that counts: .ci/run cuda"]
fn every_objective_takes_what_the_table_states() {
    let folder = folder("cuda-sm-90");
    let evaluated = evaluated(&catalogue(), "90", &folder);
    let kernels = ptxas::compile(&folder.join("ptx"));
    let mut counted = Tables::default();
    for (case, evaluations) in &evaluated {
        for evaluation in evaluations {
            assert_eq!(evaluation.refused, [] as [String; 0], "{}", case.text());
        }
        let checked = |evaluation| bytes::checked(&case.text(), evaluation);
        let bytes: Vec<_> = evaluations.iter().map(checked).collect();
        check_matrix_units(case, evaluations, &kernels);
        check_registers(case, evaluations, &kernels);
        counted.add(case, evaluations, &bytes, &kernels);
    }
    table::check(&counted);
}

/// Fails where a precision fell back to the path of another.
fn check_matrix_units(case: &Case, evaluations: &[Evaluation], kernels: &ptxas::Kernels) {
    let launched: BTreeSet<_> = evaluations.iter().flat_map(|e| &e.launches).collect();
    let with_units = launched.into_iter().any(|name| kernels[name].matrix_units);
    let wanted = case.precision != "highest" && case.has_products();
    assert_eq!(
        with_units,
        wanted,
        "{}: matrix units ran or did not, against its precision",
        case.text()
    );
}

/// Fails where a kernel of the engine has more in registers than there are, or so much that a
/// multiprocessor does not hold two of its cubes.
fn check_registers(case: &Case, evaluations: &[Evaluation], kernels: &ptxas::Kernels) {
    for name in evaluations.iter().flat_map(|e| &e.launches) {
        let kernel = &kernels[name];
        if table::is_own(name) || table::is_product(name) {
            assert_eq!(kernel.spilled, 0, "{}: {name} spills", case.text());
        }
        if table::is_own(name) || kernel.matrix_units {
            let registers = kernel.registers;
            assert!(registers <= 128, "{}: {name} has {registers}", case.text());
        }
    }
}

/// Where the device has no matrix units for bf16, as before sm_80, a precision is a permission that
/// nothing makes use of.
#[test]
#[ignore = "needs the driver that counts: .ci/run cuda"]
fn an_old_device_computes_in_full() {
    let folder = folder("cuda-sm-75");
    let cases = ["info-nce", "siglip"].map(|name| Case::new(name, "medium"));
    for (case, evaluations) in evaluated(&cases, "75", &folder) {
        for evaluation in &evaluations {
            assert_eq!(evaluation.refused, [] as [String; 0], "{}", case.text());
        }
    }
    let kernels = ptxas::compile(&folder.join("ptx"));
    assert!(kernels.values().all(|kernel| !kernel.matrix_units));
}

#[test]
#[ignore = "needs the driver that counts: .ci/run cuda"]
fn kernels_compile_for_a100_too() {
    let folder = folder("cuda-sm-80");
    let cases: Vec<_> = names()
        .into_iter()
        .map(|name| Case::new(name, "medium"))
        .collect();
    evaluated(&cases, "80", &folder);
    assert!(!ptxas::compile(&folder.join("ptx")).is_empty());
}
