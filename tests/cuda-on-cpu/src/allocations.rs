//! Memory of the device: address space that costs nothing until it is written.

#![allow(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::settings::{say, setting};

struct Block {
    at: u64,
    bytes: u64,
    number: u64,
}

#[derive(Default)]
pub struct Allocations {
    blocks: Vec<Block>,
    count: u64,
    pub live: u64,
    pub peak: u64,
}

static ALLOCATIONS: Mutex<Allocations> = Mutex::new(Allocations {
    blocks: Vec::new(),
    count: 0,
    live: 0,
    peak: 0,
});

pub fn allocations() -> MutexGuard<'static, Allocations> {
    ALLOCATIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the device has.
pub fn total() -> u64 {
    setting("STUB_CUDA_MEMORY", 80 << 30)
}

impl Allocations {
    /// The address of so many bytes, or none where they do not fit.
    pub fn add(&mut self, bytes: u64) -> Option<u64> {
        if self.live + bytes > total() {
            return None;
        }
        let at = map(bytes as usize)?;
        self.blocks.push(Block {
            at,
            bytes,
            number: self.count,
        });
        self.count += 1;
        self.live += bytes;
        self.peak = self.peak.max(self.live);
        say(&format!("alloc {bytes} {} {}", self.live, self.peak));
        Some(at)
    }

    /// Whether there was an allocation at the address.
    pub fn remove(&mut self, at: u64) -> bool {
        let Some(k) = self.blocks.iter().position(|block| block.at == at) else {
            return false;
        };
        let block = self.blocks.swap_remove(k);
        unmap(block.at, block.bytes as usize);
        self.live -= block.bytes;
        say(&format!("free {} {}", block.bytes, self.live));
        true
    }

    /// The number of the allocation that holds an address, and the byte in it.
    pub fn holding(&self, at: u64) -> Option<(u64, u64)> {
        let holds = |block: &&Block| at >= block.at && at < block.at + block.bytes;
        let block = self.blocks.iter().find(holds)?;
        Some((block.number, at - block.at))
    }

    /// Whether so many bytes at an address lie in an allocation.
    pub fn holds(&self, at: u64, bytes: u64) -> bool {
        let ends = |block: &Block| at >= block.at && at + bytes <= block.at + block.bytes;
        bytes == 0 || self.blocks.iter().any(ends)
    }

    /// From the first byte of each to behind its last.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        self.blocks
            .iter()
            .map(|block| (block.at, block.at + block.bytes))
            .collect()
    }
}

// The C library's, which every Rust program on Linux is linked with.
unsafe extern "C" {
    fn mmap(at: *mut u8, bytes: usize, protect: i32, flags: i32, file: i32, from: i64) -> *mut u8;
    fn munmap(at: *mut u8, bytes: usize) -> i32;
}

pub fn map(bytes: usize) -> Option<u64> {
    const READ_AND_WRITE: i32 = 3;
    const PRIVATE_ANONYMOUS_UNRESERVED: i32 = 0x2 | 0x20 | 0x4000;
    // SAFETY: a new mapping, wherever there is room.
    let at = unsafe {
        mmap(
            std::ptr::null_mut(),
            bytes,
            READ_AND_WRITE,
            PRIVATE_ANONYMOUS_UNRESERVED,
            -1,
            0,
        )
    };
    let at = at as u64;
    (at != u64::MAX).then_some(at)
}

pub fn unmap(at: u64, bytes: usize) {
    // SAFETY: what `map` returned, once.
    unsafe { munmap(at as *mut u8, bytes) };
}
