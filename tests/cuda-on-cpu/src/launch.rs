//! Modules, and launches of their kernels.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::allocations::allocations;
use crate::block::{Launch, Runner};
use crate::memory::Ranges;
use crate::program::Program;
use crate::settings::{computes, say, word};
use crate::text::Function;
use crate::warp::Done;

pub struct Module {
    number: u32,
    pub entry: Function,
    /// What runs, if kernels are to.
    program: Option<Program>,
    /// Bytes of shared memory that a launch may have beyond those of every device.
    pub dynamic_shared: AtomicU64,
}

/// A grid, blocks and their dynamic shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub grid: [u32; 3],
    pub threads: [u32; 3],
    pub shared: u32,
}

impl Module {
    pub fn load(text: &str) -> Result<Self, String> {
        if !text.contains(".version") {
            return Err("no PTX with an entry".into());
        }
        let entry = Function::first_entry(text)?;
        static MODULES: AtomicU32 = AtomicU32::new(0);
        let number = MODULES.fetch_add(1, Ordering::Relaxed);
        say(&format!("module {number} {} {}", entry.name, text.len()));
        if let Some(folder) = word("STUB_CUDA_PTX") {
            let name: String = entry.name.chars().take(200).collect();
            // A folder that does not exist is seen by whoever reads it.
            let _ = std::fs::write(format!("{folder}/{name}.ptx"), text);
        }
        let program = if computes() {
            Some(Program::new(text).map_err(|why| format!("{}: {why}", entry.name))?)
        } else {
            None
        };
        Ok(Self {
            number,
            entry,
            program,
            dynamic_shared: AtomicU64::new(0),
        })
    }

    /// Why a driver would refuse to launch it so.
    pub fn refusal(&self, shape: Shape) -> Option<String> {
        let Shape {
            grid: [gx, gy, gz],
            threads: [bx, by, bz],
            shared,
        } = shape;
        let name = &self.entry.name;
        if gx == 0 || gy == 0 || gz == 0 || gx > i32::MAX as u32 || gy > 65_535 || gz > 65_535 {
            return Some(format!("a grid of {gx} {gy} {gz} for {name}"));
        }
        let threads = u64::from(bx) * u64::from(by) * u64::from(bz);
        if threads == 0 || threads > 1024 || bz > 64 {
            return Some(format!("a block of {bx} {by} {bz} for {name}"));
        }
        if let Some((limit, exact)) = self.entry.threads {
            let most = limit.iter().map(|side| u64::from(*side)).product::<u64>();
            if threads > most || (exact && threads != most) {
                return Some(format!("{threads} threads where {name} has {most}"));
            }
        }
        let opted = self.dynamic_shared.load(Ordering::Relaxed);
        if shared > 49_152 && u64::from(shared) > opted {
            return Some(format!("{shared} bytes of shared memory for {name}"));
        }
        None
    }

    /// The launch as a line of the log.
    pub fn tell(&self, shape: Shape, arguments: &[Vec<u8>]) {
        let known = allocations();
        let mut text = String::new();
        for (parameter, bytes) in self.entry.parameters.iter().zip(arguments) {
            let word = <[u8; 8]>::try_from(&bytes[..]).map(u64::from_le_bytes);
            text += &match (word, parameter.is_array) {
                (Ok(word), false) => match known.holding(word) {
                    Some((number, byte)) => format!(" #{number}+{byte}"),
                    None => format!(" {word}"),
                },
                _ => {
                    let words = bytes.chunks_exact(4);
                    let words = words.map(|word| u32::from_le_bytes(word.try_into().unwrap()));
                    let words: Vec<_> = words.map(|word| word.to_string()).collect();
                    format!(" [{}]", words.join(","))
                }
            };
        }
        let Shape {
            grid: [gx, gy, gz],
            threads: [bx, by, bz],
            shared,
        } = shape;
        let (number, name) = (self.number, &self.entry.name);
        say(&format!(
            "launch {number} {name} {gx} {gy} {gz} {bx} {by} {bz} {shared} {} {}{text}",
            known.live, known.peak
        ));
    }

    /// Computes a launch, if kernels are to run.
    pub fn run(&self, shape: Shape, arguments: &[Vec<u8>]) -> Done {
        let Some(program) = &self.program else {
            return Ok(());
        };
        // Nothing is freed meanwhile.
        let known = allocations();
        run(program, shape, arguments, known.ranges())
    }
}

/// Runs a kernel where it may read and write allocations, and what its module brings.
pub fn run(
    program: &Program,
    shape: Shape,
    arguments: &[Vec<u8>],
    mut ranges: Vec<(u64, u64)>,
) -> Done {
    let mut parameters = vec![0; program.parameter_bytes.next_multiple_of(16)];
    for (offset, bytes) in program.offsets.iter().zip(arguments) {
        parameters[*offset..*offset + bytes.len()].copy_from_slice(bytes);
    }
    ranges.extend(program.globals.iter().map(|words| {
        let start = words.as_ptr() as u64;
        (start, start + size_of_val(&words[..]) as u64)
    }));
    let launch = Launch {
        program,
        grid: shape.grid,
        threads: shape.threads,
        shared: shape.shared as usize,
        parameters,
        ranges: Ranges::new(ranges),
    };
    let [x, y, z] = shape.grid.map(u64::from);
    let (next, fault) = (AtomicU64::new(0), Mutex::new(Ok(())));
    let work = || {
        let mut runner = Runner::new(&launch);
        loop {
            let k = next.fetch_add(1, Ordering::Relaxed);
            if k >= x * y * z {
                return;
            }
            let index = [k % x, k / x % y, k / x / y].map(|index| index as u32);
            if let Err(why) = runner.run(index) {
                next.store(u64::MAX / 2, Ordering::Relaxed);
                let why = format!("{}: block {index:?}, {why}", program.name);
                *fault.lock().unwrap() = Err(why.into());
                return;
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    std::thread::scope(|scope| {
        for _ in 1..workers.min(x * y * z) {
            scope.spawn(work);
        }
        work();
    });
    fault.into_inner().unwrap()
}
