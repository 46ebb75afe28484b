//! Macros that turn the functions of a module into tests on each backend. Every module of the suite
//! lists its own; a function that no list names is dead code, which lints deny.

/// Tests on one backend: `$required` are the float dtypes that it must support besides f32.
macro_rules! stamp {
    ($module:ident, $feature:literal, $device:expr, $required:expr; $($test:ident,)+) => {
        #[cfg(feature = $feature)]
        mod $module {
            #[allow(unused_imports)] // `DType`: some backends require f32 alone.
            use burn::tensor::{DType, Device};
            use $crate::suite::Backend;
            $(
                #[test]
                fn $test() {
                    super::$test(&Backend::new($device, &$required));
                }
            )+
        }
    };
}

/// Tests on every backend.
macro_rules! on_every_backend {
    ($($tests:tt)+) => {
        stamp!(flex, "flex", Device::flex(), [DType::F64, DType::F16, DType::BF16]; $($tests)+);
        stamp!(ndarray, "ndarray", Device::ndarray(), [DType::F64]; $($tests)+);
        on_gpus! { $($tests)+ }
    };
}

/// Tests on the backends whose passes are launched kernels.
#[cfg_attr(not(feature = "_cube"), allow(unused_macros))]
macro_rules! on_devices {
    ($($tests:tt)+) => {
        on_cpu_device! { $($tests)+ }
        on_gpus! { $($tests)+ }
    };
}

/// Tests on CubeCL's CPU, of those that are quick there: what most ask for is Burn's own operations,
/// whose kernels take LLVM a few hundredths of a second each, and whose products of matrices have
/// barriers, at which more threads wait busily than there are cores.
macro_rules! on_cpu_device {
    ($($tests:tt)+) => {
        stamp!(cpu, "cpu", Device::cpu(), [DType::F64, DType::F16]; $($tests)+);
    };
}

/// Tests on CUDA alone: of matrix units, and of what else an emulation of it can show.
#[cfg_attr(not(feature = "cuda"), allow(unused_macros))]
macro_rules! on_cuda {
    ($($tests:tt)+) => {
        stamp!(
            cuda, "cuda", Device::cuda(0), [DType::F64, DType::F16, DType::BF16]; $($tests)+
        );
    };
}

macro_rules! on_gpus {
    ($($tests:tt)+) => {
        stamp!(wgpu, "wgpu", Device::wgpu(Default::default()), []; $($tests)+);
        stamp!(vulkan, "vulkan", Device::vulkan(Default::default()), []; $($tests)+);
        stamp!(metal, "metal", Device::metal(Default::default()), []; $($tests)+);
        on_cuda! { $($tests)+ }
        stamp!(
            rocm, "rocm", Device::rocm(0), [DType::F64, DType::F16, DType::BF16]; $($tests)+
        );
    };
}

/// Tests on the backends with CPU kernels of their own, on which larger shapes are affordable.
macro_rules! on_cpu_backends {
    ($($tests:tt)+) => {
        stamp!(
            flex_kernels, "flex", Device::flex(), [DType::F64, DType::F16, DType::BF16]; $($tests)+
        );
        stamp!(ndarray_kernels, "ndarray", Device::ndarray(), [DType::F64]; $($tests)+);
    };
}
