//! The device, streams and events: what there is to say about them without one.

#![allow(unsafe_code)]
// `cuda.h` says what pointers must be; no caller is in Rust.
#![allow(clippy::missing_safety_doc)]

use std::ffi::{c_char, c_void};

use crate::allocations::total;
use crate::api::{INVALID_DEVICE, NOT_SUPPORTED, OK, Status, put};
use crate::settings::{say, setting, word};

/// Functions of the driver: what they do, or that they do nothing. All are called from C.
macro_rules! driver {
    ($($name:ident($($argument:ident: $type:ty),*) $body:block)+) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> Status $body
        )+
    };
}
pub(crate) use driver;

type Handle = *mut c_void;

/// No handle is looked at, but none may be null.
fn handle() -> Handle {
    16 as Handle
}

/// Writes a text and its end to so many bytes.
fn put_text(to: *mut c_char, room: i32, text: &str) -> Status {
    let bytes = text
        .bytes()
        .take((room as usize).saturating_sub(1))
        .chain([0]);
    for (k, byte) in bytes.enumerate() {
        // SAFETY: the caller has `room` bytes there.
        unsafe { to.add(k).write(byte as c_char) };
    }
    OK
}

driver! {
    cuInit(_flags: u32) { OK }
    cuDriverGetVersion(to: *mut i32) { put(to, setting("STUB_CUDA_DRIVER", 12090) as i32) }
    cuDeviceGetCount(to: *mut i32) { put(to, 1) }
    cuDeviceGet(to: *mut i32, k: i32) {
        put(to, k);
        if k == 0 { OK } else { INVALID_DEVICE }
    }
    cuDeviceGetName(to: *mut c_char, room: i32, _device: i32) {
        put_text(to, room, &word("STUB_CUDA_NAME").unwrap_or("stub".into()))
    }
    cuDeviceGetUuid_v2(to: *mut [u8; 16], _device: i32) { put(to, [7; 16]) }
    cuDeviceGetUuid(to: *mut [u8; 16], _device: i32) { put(to, [7; 16]) }
    cuDeviceTotalMem_v2(to: *mut usize, _device: i32) { put(to, total() as usize) }
    cuDeviceGetPCIBusId(to: *mut c_char, room: i32, _device: i32) {
        put_text(to, room, "0000:01:00.0")
    }
    cuDeviceGetAttribute(to: *mut i32, attribute: i32, _device: i32) { put(to, value(attribute)) }
    cuDevicePrimaryCtxRetain(to: *mut Handle, _device: i32) { put(to, handle()) }
    cuDevicePrimaryCtxRelease_v2(_device: i32) { OK }
    cuCtxSetCurrent(_context: Handle) { OK }
    cuCtxGetCurrent(to: *mut Handle) { put(to, handle()) }
    cuCtxSynchronize() { OK }
    cuCtxGetStreamPriorityRange(least: *mut i32, greatest: *mut i32) {
        put(least, 0);
        put(greatest, -5)
    }
    cuStreamCreate(to: *mut Handle, _flags: u32) { put(to, handle()) }
    cuStreamCreateWithPriority(to: *mut Handle, _flags: u32, _priority: i32) { put(to, handle()) }
    cuStreamDestroy_v2(_stream: Handle) { OK }
    cuStreamSynchronize(_stream: Handle) { OK }
    cuStreamQuery(_stream: Handle) { OK }
    cuStreamWaitEvent(_stream: Handle, _event: Handle, _flags: u32) { OK }
    cuStreamBeginCapture_v2(_stream: Handle, _mode: i32) { NOT_SUPPORTED }
    cuStreamEndCapture(_stream: Handle, _to: *mut Handle) { NOT_SUPPORTED }
    cuStreamIsCapturing(_stream: Handle, to: *mut i32) { put(to, 0) }
    cuEventCreate(to: *mut Handle, _flags: u32) { put(to, handle()) }
    cuEventDestroy_v2(_event: Handle) { OK }
    cuEventRecord(_event: Handle, _stream: Handle) { OK }
    cuEventSynchronize(_event: Handle) { OK }
    cuEventQuery(_event: Handle) { OK }
    cuEventElapsedTime(to: *mut f32, _from: Handle, _until: Handle) { put(to, 0.01) }
    cuEventElapsedTime_v2(to: *mut f32, _from: Handle, _until: Handle) { put(to, 0.01) }
    cuLaunchHostFunc(_stream: Handle, call: extern "C" fn(*mut c_void), data: *mut c_void) {
        call(data);
        OK
    }
    cuTensorMapEncodeTiled(to: *mut [u8; 128]) {
        say("tensormap tiled");
        put(to, [0; 128])
    }
    cuTensorMapEncodeIm2col(to: *mut [u8; 128]) {
        say("tensormap im2col");
        put(to, [0; 128])
    }
}

/// An attribute of the device.
fn value(attribute: i32) -> i32 {
    let capability = setting("STUB_CUDA_CC", 90) as i32;
    let shared = setting("STUB_CUDA_SHARED", 232_448) as i32;
    match attribute {
        1..=3 => 1024,     // threads of a block, and along x and y
        4 => 64,           // along z
        5 => i32::MAX,     // blocks along x
        6 | 7 => 65_535,   // along y and z
        8 => 49_152,       // shared memory of a block, without opting in
        9 => 65_536,       // constant memory
        10 => 32,          // threads of a warp
        11 => i32::MAX,    // pitch
        12 | 82 => 65_536, // registers of a block, and of a multiprocessor
        13 => 1_980_000,   // clock, kHz
        14 => 512,         // alignment of textures
        16 => setting("STUB_CUDA_SMS", 132) as i32,
        36 => 2_619_000,  // memory clock, kHz
        37 => 5_120,      // memory bus, bits
        38 => 52_428_800, // L2
        39 => 2_048,      // threads of a multiprocessor
        41 => 1,          // unified addresses
        75 => capability / 10,
        76 => capability % 10,
        81 => shared + 1_024,               // shared memory of a multiprocessor
        97 => shared,                       // of a block, opted in
        106 => 32,                          // blocks of a multiprocessor
        111 => 1_024,                       // reserved shared memory of a block
        115 => 1,                           // memory pools
        120 => i32::from(capability >= 90), // clusters
        other => {
            say(&format!("attribute {other} is answered with 0"));
            0
        }
    }
}
