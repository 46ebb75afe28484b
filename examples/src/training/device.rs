//! `--device`: a backend by name, with an index where the machine has several.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;

use crate::words::shown;

/// Every backend name, in the order of the help text; each is also a cargo feature.
pub const BACKENDS: [&str; 8] = [
    "flex", "ndarray", "wgpu", "vulkan", "metal", "cuda", "rocm", "cpu",
];

/// The backends that this build has.
pub fn available() -> Vec<&'static str> {
    let enabled = [
        cfg!(feature = "flex"),
        cfg!(feature = "ndarray"),
        cfg!(feature = "wgpu"),
        cfg!(feature = "vulkan"),
        cfg!(feature = "metal"),
        cfg!(feature = "cuda"),
        cfg!(feature = "rocm"),
        cfg!(feature = "cpu"),
    ];
    let backends = BACKENDS.into_iter().zip(enabled);
    backends
        .filter_map(|(name, enabled)| enabled.then_some(name))
        .collect()
}

/// The device of a name such as `flex`, `wgpu` or `cuda:1`, for the binary of that name.
///
/// An index selects a discrete GPU with wgpu, Vulkan and Metal, and the device of that index with
/// CUDA and ROCm; without one the backend's default is taken.
///
/// # Errors
///
/// If no backend has that name, if this build lacks its feature (the message says how to build with
/// it), or if the index is not a number or the backend has only one device.
pub fn parse_device(text: &str, program: &str) -> Result<Device> {
    let (name, number) = match text.split_once(':') {
        Some((name, number)) => (name, Some(number)),
        None => (text, None),
    };
    if !BACKENDS.contains(&name) {
        bail!(
            "--device: no backend is called `{}`; there are {}",
            shown(name),
            BACKENDS.join(", ")
        );
    }
    let index = number.map(str::parse).transpose().with_context(|| {
        let number = shown(number.unwrap_or_default());
        format!("--device: `{number}` is not the number of a device (as in `cuda:0`)")
    })?;
    if !available().contains(&name) {
        bail!(
            "--device {text}: this program was built without {name} (it has {}); run it with\n    \
             cargo run --release --features {name} --bin {program} -- --device {text}",
            available().join(", "),
        );
    }
    if index.is_some() && matches!(name, "flex" | "ndarray" | "cpu") {
        bail!("--device {text}: {name} has one device; write `--device {name}`");
    }
    if name == "cuda" {
        check_libdevice(text)?;
    }
    Ok(open(name, index))
}

/// Whether CubeCL will find NVIDIA's library of functions, which the driver does not bring: without
/// it no kernel with an exponential compiles, which shows only when its result is read.
fn check_libdevice(text: &str) -> Result<()> {
    const ROOTS: [&str; 4] = ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"];
    let named = std::env::var_os("CUDA_PATH").map(PathBuf::from);
    let roots = match &named {
        Some(root) => vec![root.as_path()],
        None => ROOTS.map(Path::new).to_vec(),
    };
    let library = Path::new("nvvm/libdevice/libdevice.10.bc");
    let shown: Vec<_> = roots
        .iter()
        .map(|root| root.display().to_string())
        .collect();
    ensure!(
        roots.iter().any(|root| root.join(library).is_file()),
        "--device {text}: there is no {} in {}. Install the CUDA toolkit or, without root,\n    \
         pip install --target cuda nvidia-cuda-nvcc-cu12\n    \
         export CUDA_PATH=$PWD/cuda/nvidia/cuda_nvcc",
        library.display(),
        shown.join(", "),
    );
    Ok(())
}

/// Whether the backend of that name computes in f64 to its precision. Shader languages, where they
/// have the type, have no exponential of it.
pub fn computes_f64(text: &str) -> bool {
    let name = text.split(':').next().unwrap_or(text);
    ["flex", "ndarray", "cuda", "rocm", "cpu"].contains(&name)
}

/// Whether it is the processor that computes, on all of its cores.
#[allow(deprecated)] // NdArray, which Burn itself has deprecated
pub fn is_cpu(device: &Device) -> bool {
    let processors = [
        #[cfg(feature = "flex")]
        Device::flex(),
        #[cfg(feature = "ndarray")]
        Device::ndarray(),
    ];
    processors.contains(device)
}

/// The device of an enabled backend.
#[allow(deprecated)] // NdArray, which Burn itself has deprecated
#[allow(unused_variables, unreachable_patterns)]
fn open(name: &str, index: Option<usize>) -> Device {
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
    let kind = match index {
        Some(index) => burn::tensor::DeviceKind::DiscreteGpu(index),
        None => burn::tensor::DeviceKind::DefaultDevice,
    };
    match name {
        #[cfg(feature = "flex")]
        "flex" => Device::flex(),
        #[cfg(feature = "ndarray")]
        "ndarray" => Device::ndarray(),
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::wgpu(kind),
        #[cfg(feature = "vulkan")]
        "vulkan" => Device::vulkan(kind),
        #[cfg(feature = "metal")]
        "metal" => Device::metal(kind),
        #[cfg(feature = "cuda")]
        "cuda" => Device::cuda(index.unwrap_or(0)),
        #[cfg(feature = "rocm")]
        "rocm" => Device::rocm(index.unwrap_or(0)),
        #[cfg(feature = "cpu")]
        "cpu" => Device::cpu(),
        _ => unreachable!("backend `{name}` is not enabled"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse_device(text, "clip").expect_err(text).to_string()
    }

    #[cfg(feature = "flex")]
    #[test]
    fn an_enabled_backend_opens() {
        let device = parse_device("flex", "clip").unwrap();
        assert_eq!(device, Device::flex());
        assert!(is_cpu(&device) && is_cpu(&device.autodiff()));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_backend_that_is_off_names_its_cargo_flag() {
        let message = message("cuda:1");
        assert!(message.contains("built without cuda"), "{message}");
        assert!(
            message.contains("cargo run --release --features cuda --bin clip -- --device cuda:1"),
            "{message}",
        );
    }

    #[test]
    fn an_unknown_backend_is_refused_with_the_known_ones() {
        let message = message("tpu");
        assert!(message.contains("no backend is called `tpu`"), "{message}");
        assert!(message.contains("flex, ndarray, wgpu"), "{message}");
    }

    #[test]
    fn a_bad_index_is_refused() {
        assert!(message("cuda:first").contains("`first` is not the number"));
        #[cfg(feature = "flex")]
        assert!(message("flex:0").contains("flex has one device"));
    }
}
