//! A stand-in for NVIDIA's libcuda.so.1: a device without a GPU, that counts and computes if asked.
//!
//! Host code, compilation, allocation and launches are real. Kernels run only with
//! `STUB_CUDA_COMPUTE=1`: then their PTX is interpreted on the CPU, and a fault of one (an address
//! in no allocation, a barrier that a part of the threads reaches, a race in shared memory) ends the
//! process with a message; memory is NaN until it is written. Otherwise they do nothing, and memory is
//! reserved address space (pages that nobody writes cost nothing and read as zero). Copies and fills are done, streams and events are
//! complete at once. Each call of interest is one line of text in `$STUB_CUDA_LOG`:
//!
//! ```text
//! alloc  BYTES LIVE PEAK          free BYTES LIVE
//! module K ENTRY PTX_BYTES        the text is in $STUB_CUDA_PTX/ENTRY.ptx
//! launch K ENTRY GX GY GZ BX BY BZ DYNAMIC_SHARED LIVE PEAK ARGUMENTS
//! copy   KIND BYTES [PITCHES]     fill BYTES
//! refuse CALL WHY                 what a driver would have refused, too
//! ```
//!
//! ARGUMENTS: `#A+B` is byte B of the A-th allocation, `[a,b,...]` a parameter by value, as u32.
//!
//! Environment: `STUB_CUDA_COMPUTE`, `STUB_CUDA_LOG`, `STUB_CUDA_PTX`, `STUB_CUDA_NAME`,
//! `STUB_CUDA_CC` (90), `STUB_CUDA_SMS` (132), `STUB_CUDA_DRIVER` (12090), `STUB_CUDA_MEMORY`
//! (bytes), `STUB_CUDA_SHARED` (opt-in bytes of a block: 232448).

mod allocations;
mod api;
mod block;
mod calls;
mod decode;
mod device;
mod launch;
mod memory;
mod names;
mod number;
mod program;
mod settings;
#[cfg(test)]
mod tests;
mod text;
mod warp;
