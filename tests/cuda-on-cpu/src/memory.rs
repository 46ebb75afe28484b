//! Addresses of a kernel, checked: of allocations, of a block's memory, of a thread's own.

#![allow(unsafe_code)]

use crate::block::{Block, LOCAL, PARAMETERS, SHARED};
use crate::warp::{Done, Fault, LANES, Warp};

/// Where an instruction says that an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Parameters,
}

/// Live allocations, from their first byte to behind their last, sorted.
#[derive(Clone, Debug, Default)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub fn new(mut ranges: Vec<(u64, u64)>) -> Self {
        ranges.sort_unstable();
        Self(ranges)
    }

    fn holding(&self, at: u64) -> Option<(u64, u64)> {
        let after = self.0.partition_point(|range| range.0 <= at);
        self.0[..after].last().copied()
    }
}

/// Who accessed each byte of a block's memory last, to find threads that do not wait for others.
pub struct Accesses {
    /// Epoch · 64 + the warp, or 63 for several. An epoch is from a barrier to the next.
    writes: Vec<u32>,
    reads: Vec<u32>,
    epoch: u32,
}

const SEVERAL: u32 = 63;

impl Accesses {
    pub fn new(bytes: usize) -> Self {
        Self {
            writes: vec![0; bytes],
            reads: vec![0; bytes],
            epoch: 1,
        }
    }

    /// Nothing is written.
    pub fn clear(&mut self) {
        self.writes.fill(0);
        self.reads.fill(0);
        self.epoch = 1;
    }

    pub fn barrier(&mut self) {
        self.epoch += 1;
    }

    #[inline]
    fn check(&mut self, at: usize, bytes: usize, warp: usize, write: bool) -> Done {
        let now = self.epoch * 64;
        let tag = now + warp as u32;
        let writes = &mut self.writes[at..at + bytes];
        let reads = &mut self.reads[at..at + bytes];
        if !write && writes.contains(&0) {
            return Err(format!("reads byte {at} of shared memory, which is not written").into());
        }
        let by_another = |last: u32| last >= now && last != tag;
        if writes.iter().any(|last| by_another(*last)) {
            return Err(race(at, if write { "writes" } else { "reads" }, "wrote"));
        }
        if write {
            if reads.iter().any(|last| by_another(*last)) {
                return Err(race(at, "writes", "read"));
            }
            writes.fill(tag);
        } else {
            for last in reads {
                *last = if by_another(*last) {
                    now + SEVERAL
                } else {
                    tag
                };
            }
        }
        Ok(())
    }
}

fn race(at: usize, does: &str, did: &str) -> Fault {
    format!("{does} byte {at} of shared memory, which another warp {did} since the last barrier")
        .into()
}

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    /// Both at once: no race with others of its kind.
    Atomic,
}

/// The place in the host's memory of so many bytes at an address of a lane.
#[inline]
pub fn place(
    (warp, block): (&mut Warp, &mut Block),
    (space, address, lane): (Space, u64, usize),
    bytes: usize,
    kind: Kind,
) -> Result<*mut u8, Fault> {
    if address & (bytes as u64 - 1) != 0 {
        return Err(format!("an access of {bytes} bytes at {address:x} is misaligned").into());
    }
    let (space, offset) = match space {
        Space::Generic if address >= PARAMETERS => (Space::Parameters, address - PARAMETERS),
        Space::Generic if address >= LOCAL => (Space::Local, address - LOCAL),
        Space::Generic if address >= SHARED => (Space::Shared, address - SHARED),
        Space::Generic => (Space::Global, address),
        other => (other, address),
    };
    let outside = |bytes_there: usize| -> Fault {
        format!("{bytes} bytes at {offset} of {space:?} memory of {bytes_there} bytes").into()
    };
    let at = offset as usize;
    let fits = |room: usize| at.checked_add(bytes).is_some_and(|end| end <= room);
    match space {
        Space::Global | Space::Generic => global(warp, block, offset, bytes),
        Space::Shared => {
            let room = block.shared.len();
            if !fits(room) {
                return Err(outside(room));
            }
            if kind != Kind::Atomic {
                block
                    .accesses
                    .check(at, bytes, warp.number, kind == Kind::Write)?;
            } else {
                block.accesses.writes[at..at + bytes].fill(1);
            }
            Ok(&mut block.shared[at])
        }
        Space::Local => {
            let room = warp.local.len() / LANES;
            if !fits(room) {
                return Err(outside(room));
            }
            Ok(&mut warp.local[lane * room + at])
        }
        Space::Parameters => {
            let parameters = &block.launch.parameters;
            if !fits(parameters.len()) || kind != Kind::Read {
                return Err(outside(parameters.len()));
            }
            Ok(parameters[at..].as_ptr().cast_mut())
        }
    }
}

#[inline]
fn global(warp: &mut Warp, block: &Block, at: u64, bytes: usize) -> Result<*mut u8, Fault> {
    let (start, end) = warp.found;
    if at < start || at + bytes as u64 > end {
        let found = block.launch.ranges.holding(at);
        let found = found.filter(|(_, end)| at + bytes as u64 <= *end);
        warp.found = found.ok_or_else(|| -> Fault {
            format!("{bytes} bytes at {at:x} lie in no allocation").into()
        })?;
    }
    Ok(at as *mut u8)
}

/// The number in so many bytes.
#[inline]
pub fn read(from: *const u8, bytes: usize) -> u64 {
    // SAFETY: `place` found the bytes in a live allocation, aligned. Another worker may write them
    // meanwhile, if the kernel has a race: volatile, so that the number is whatever is there.
    unsafe {
        match bytes {
            1 => from.read_volatile().into(),
            2 => from.cast::<u16>().read_volatile().into(),
            4 => from.cast::<u32>().read_volatile().into(),
            _ => from.cast::<u64>().read_volatile(),
        }
    }
}

/// Writes a number to so many bytes.
#[inline]
pub fn write(to: *mut u8, bytes: usize, value: u64) {
    // SAFETY: as in `read`.
    unsafe {
        match bytes {
            1 => to.write_volatile(value as u8),
            2 => to.cast::<u16>().write_volatile(value as u16),
            4 => to.cast::<u32>().write_volatile(value as u32),
            _ => to.cast::<u64>().write_volatile(value),
        }
    }
}
