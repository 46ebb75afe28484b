//! Memory, modules and launches, as the driver's callers see them.

#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc)] // As in `device`.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use crate::allocations::{allocations, map, total, unmap};
use crate::device::driver;
use crate::launch::{Module, Shape};
use crate::settings::{computes, say, setting};
use crate::text::Variable;

/// `CUresult`.
pub type Status = i32;
pub const OK: Status = 0;
const INVALID_VALUE: Status = 1;
const OUT_OF_MEMORY: Status = 2;
pub const INVALID_DEVICE: Status = 101;
const INVALID_PTX: Status = 218;
const NOT_FOUND: Status = 500;
const ILLEGAL_ADDRESS: Status = 700;
pub const NOT_SUPPORTED: Status = 801;

/// Writes a result where the caller wants it.
pub fn put<T>(to: *mut T, value: T) -> Status {
    // SAFETY: the caller's place for one value, as `cuda.h` asks.
    unsafe { to.write(value) };
    OK
}

fn refuse(status: Status, call: &str, why: &str) -> Status {
    say(&format!("refuse {call} {why}"));
    status
}

// Memory. ----------------------------------------------------------------------------------------

fn allocate(to: *mut u64, bytes: usize) -> Status {
    if bytes == 0 {
        return INVALID_VALUE;
    }
    let mut known = allocations();
    match known.add(bytes as u64) {
        Some(at) => {
            if computes() {
                // As garbage as a device's, and NaN in every type of numbers.
                // SAFETY: the new allocation.
                unsafe { std::ptr::write_bytes(at as *mut u8, 0xff, bytes) };
            }
            put(to, at)
        }
        None => refuse(
            OUT_OF_MEMORY,
            "alloc",
            &format!("{bytes} bytes over {}", known.live),
        ),
    }
}

fn release(at: u64) -> Status {
    if at == 0 || allocations().remove(at) {
        return OK;
    }
    refuse(INVALID_VALUE, "free", &format!("{at:x} is no allocation"))
}

fn outside(call: &str, at: u64, bytes: usize) -> Status {
    if allocations().holds(at, bytes as u64) {
        return OK;
    }
    let why = format!("{bytes} bytes at {at:x} leave their allocation");
    refuse(ILLEGAL_ADDRESS, call, &why)
}

/// Copies between the host and the device, or on it. `checked` are places on the device.
fn copy(kind: &str, to: u64, from: u64, bytes: usize, checked: &[u64]) -> Status {
    if checked.iter().any(|at| outside("copy", *at, bytes) != OK) {
        return ILLEGAL_ADDRESS;
    }
    say(&format!("copy {kind} {bytes}"));
    // SAFETY: so many bytes are at both: the caller's, or an allocation's as checked.
    unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
    OK
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
pub struct Copy2d {
    from: Place2d,
    to: Place2d,
    width: usize,
    height: usize,
}

#[repr(C)]
struct Place2d {
    x: usize,
    y: usize,
    kind: i32,
    host: u64,
    device: u64,
    array: u64,
    pitch: usize,
}

impl Place2d {
    fn is_host(&self) -> bool {
        self.kind == 1
    }

    fn start(&self) -> u64 {
        if self.is_host() {
            self.host
        } else {
            self.device
        }
    }

    fn row(&self, y: usize) -> usize {
        (self.y + y) * self.pitch + self.x
    }
}

fn copy_2d(c: &Copy2d) -> Status {
    let (from, to) = (&c.from, &c.to);
    let (bytes, pitches) = (c.width * c.height, [from.pitch, to.pitch]);
    let [p, q] = pitches;
    say(&format!(
        "copy 2D {bytes} rows {} width {} pitches {p} -> {q}",
        c.height, c.width
    ));
    for place in [from, to] {
        let end = || place.row(c.height - 1) + c.width;
        if c.height > 0 && !place.is_host() && outside("copy 2D", place.device, end()) != OK {
            return ILLEGAL_ADDRESS;
        }
    }
    for y in 0..c.height {
        let (from, to) = (
            from.start() + from.row(y) as u64,
            to.start() + to.row(y) as u64,
        );
        // SAFETY: rows of both, as checked or as the caller says.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, c.width) };
    }
    OK
}

fn fill(at: u64, value: u8, bytes: usize) -> Status {
    let status = outside("fill", at, bytes);
    if status == OK {
        say(&format!("fill {bytes}"));
        // SAFETY: in an allocation, as checked.
        unsafe { std::ptr::write_bytes(at as *mut u8, value, bytes) };
    }
    status
}

/// Memory of the host that the driver gave, and how much each.
static HOST: Mutex<BTreeMap<u64, usize>> = Mutex::new(BTreeMap::new());

fn host_memory(to: *mut u64, bytes: usize) -> Status {
    let Some(at) = map(bytes) else {
        return OUT_OF_MEMORY;
    };
    HOST.lock().unwrap().insert(at, bytes);
    put(to, at)
}

fn free_host_memory(at: u64) -> Status {
    match HOST.lock().unwrap().remove(&at) {
        Some(bytes) => unmap(at, bytes),
        None => return INVALID_VALUE,
    }
    OK
}

type Stream = *mut c_void;

driver! {
    cuMemAlloc_v2(to: *mut u64, bytes: usize) { allocate(to, bytes) }
    cuMemAllocAsync(to: *mut u64, bytes: usize, _stream: Stream) { allocate(to, bytes) }
    cuMemFree_v2(at: u64) { release(at) }
    cuMemFreeAsync(at: u64, _stream: Stream) { release(at) }
    cuMemAllocHost_v2(to: *mut u64, bytes: usize) { host_memory(to, bytes) }
    cuMemHostAlloc(to: *mut u64, bytes: usize, _flags: u32) { host_memory(to, bytes) }
    cuMemFreeHost(at: u64) { free_host_memory(at) }
    cuMemGetInfo_v2(available: *mut usize, all: *mut usize) {
        put(available, (total() - allocations().live) as usize);
        put(all, total() as usize)
    }
    cuMemcpyHtoD_v2(to: u64, from: u64, n: usize) { copy("HtoD", to, from, n, &[to]) }
    cuMemcpyHtoDAsync_v2(to: u64, from: u64, n: usize, _stream: Stream) {
        copy("HtoD", to, from, n, &[to])
    }
    cuMemcpyDtoH_v2(to: u64, from: u64, n: usize) { copy("DtoH", to, from, n, &[from]) }
    cuMemcpyDtoHAsync_v2(to: u64, from: u64, n: usize, _stream: Stream) {
        copy("DtoH", to, from, n, &[from])
    }
    cuMemcpyDtoD_v2(to: u64, from: u64, n: usize) { copy("DtoD", to, from, n, &[to, from]) }
    cuMemcpyDtoDAsync_v2(to: u64, from: u64, n: usize, _stream: Stream) {
        copy("DtoD", to, from, n, &[to, from])
    }
    cuMemcpy2DAsync_v2(what: *const Copy2d, _stream: Stream) {
        // SAFETY: the caller's description, as `cuda.h` asks.
        copy_2d(unsafe { &*what })
    }
    cuMemsetD8_v2(at: u64, value: u8, bytes: usize) { fill(at, value, bytes) }
    cuMemsetD8Async(at: u64, value: u8, bytes: usize, _stream: Stream) { fill(at, value, bytes) }
}

// Modules and launches. --------------------------------------------------------------------------

fn load(to: *mut *const Module, image: *const c_char) -> Status {
    // SAFETY: text that ends with a zero; a binary is told by its first bytes.
    let text = unsafe { CStr::from_ptr(image) }.to_string_lossy();
    match Module::load(&text) {
        // Modules are kept for good: nobody counts who still uses one.
        Ok(module) => put(to, Box::leak(Box::new(module)) as *const Module),
        Err(why) => {
            eprintln!("the stand-in for CUDA cannot load {why}");
            refuse(INVALID_PTX, "cuModuleLoadData", &why)
        }
    }
}

fn opt_in(module: &Module, attribute: i32, value: i32) -> Status {
    if attribute != 8 {
        return OK;
    }
    if value as u64 > setting("STUB_CUDA_SHARED", 232_448) {
        let why = format!("{value} bytes of shared memory for {}", module.entry.name);
        return refuse(INVALID_VALUE, "cuFuncSetAttribute", &why);
    }
    module.dynamic_shared.store(value as u64, Ordering::Relaxed);
    OK
}

fn launch(module: &Module, shape: Shape, arguments: *const *const u8) -> Status {
    if let Some(why) = module.refusal(shape) {
        return refuse(INVALID_VALUE, "cuLaunchKernel", &why);
    }
    let bytes = |(k, parameter): (usize, &Variable)| {
        // SAFETY: a pointer for each parameter, to as many bytes as it has, as `cuda.h` asks.
        unsafe { std::slice::from_raw_parts(*arguments.add(k), parameter.bytes) }.to_vec()
    };
    let arguments: Vec<Vec<u8>> = module
        .entry
        .parameters
        .iter()
        .enumerate()
        .map(bytes)
        .collect();
    module.tell(shape, &arguments);
    if let Err(why) = module.run(shape, &arguments) {
        // Whoever launched it reads results much later, if at all.
        eprintln!("a kernel failed: {why}");
        std::process::abort();
    }
    OK
}

driver! {
    cuModuleLoadData(to: *mut *const Module, image: *const c_char) { load(to, image) }
    cuModuleUnload(_module: *const Module) { OK }
    cuModuleGetFunction(to: *mut *const Module, module: *const Module, name: *const c_char) {
        // SAFETY: what `cuModuleLoadData` gave, and a text.
        let (known, name) = unsafe { (&*module, CStr::from_ptr(name).to_string_lossy()) };
        if name != known.entry.name {
            let why = format!("{name} in {}", known.entry.name);
            return refuse(NOT_FOUND, "cuModuleGetFunction", &why);
        }
        put(to, module)
    }
    cuFuncSetAttribute(function: *const Module, attribute: i32, value: i32) {
        // SAFETY: what `cuModuleGetFunction` gave.
        opt_in(unsafe { &*function }, attribute, value)
    }
    cuFuncGetAttribute(to: *mut i32, _attribute: i32, _function: *const Module) { put(to, 0) }
    cuLaunchKernel(
        function: *const Module, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32,
        shared: u32, _stream: Stream, arguments: *const *const u8, _extra: *mut *mut c_void
    ) {
        let shape = Shape { grid: [gx, gy, gz], threads: [bx, by, bz], shared };
        // SAFETY: what `cuModuleGetFunction` gave.
        launch(unsafe { &*function }, shape, arguments)
    }
    cuGetErrorName(status: Status, to: *mut *const c_char) { put(to, name(status).as_ptr()) }
    cuGetErrorString(status: Status, to: *mut *const c_char) { put(to, name(status).as_ptr()) }
}

fn name(status: Status) -> &'static CStr {
    match status {
        OK => c"CUDA_SUCCESS",
        INVALID_VALUE => c"CUDA_ERROR_INVALID_VALUE",
        OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY",
        INVALID_PTX => c"CUDA_ERROR_INVALID_PTX",
        NOT_SUPPORTED => c"CUDA_ERROR_NOT_SUPPORTED",
        _ => c"CUDA_ERROR (of the stub)",
    }
}
