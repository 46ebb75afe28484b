//! A block: warps with a memory that they share, and barriers.

use crate::memory::{Accesses, Ranges};
use crate::program::{Program, Special, TRUE};
use crate::warp::{Done, Fault, Group, LANES, Mask, Waiting, Warp};

/// Where shared memory, a thread's own and parameters begin among all addresses; a host's pointers
/// are below.
pub const SHARED: u64 = 1 << 60;
pub const LOCAL: u64 = 2 << 60;
pub const PARAMETERS: u64 = 3 << 60;

/// Instructions of a warp before another one has its turn.
const TURN: usize = 64;

/// What a launch is of.
pub struct Launch<'a> {
    pub program: &'a Program,
    pub grid: [u32; 3],
    pub threads: [u32; 3],
    pub shared: usize,
    pub parameters: Vec<u8>,
    /// Where kernels may read and write.
    pub ranges: Ranges,
}

/// What the warps of a block have in common.
pub struct Block<'a> {
    pub launch: &'a Launch<'a>,
    pub shared: Vec<u8>,
    pub accesses: Accesses,
    pub index: [u32; 3],
}

/// A block and its warps, made once for as many blocks as a worker runs.
pub struct Runner<'a> {
    block: Block<'a>,
    warps: Vec<Warp>,
}

impl<'a> Runner<'a> {
    pub fn new(launch: &'a Launch<'a>) -> Self {
        let program = launch.program;
        let threads = launch.threads.iter().product::<u32>() as usize;
        let mut predicates = vec![0; program.predicates];
        predicates[TRUE] = Mask::MAX;
        let warp = |number| {
            let mut registers = vec![[0; LANES]; program.registers];
            for &(register, value) in &program.constants {
                registers[register] = [value; LANES];
            }
            Warp {
                number,
                registers,
                predicates: predicates.clone(),
                carries: 0,
                local: vec![0; program.local * LANES],
                returns: [const { Vec::new() }; LANES],
                groups: Vec::new(),
                all: 0,
                found: (0, 0),
            }
        };
        let shared = launch.shared + program.shared;
        Self {
            block: Block {
                launch,
                shared: vec![0; shared],
                accesses: Accesses::new(shared),
                index: [0; 3],
            },
            warps: (0..threads.div_ceil(LANES)).map(warp).collect(),
        }
    }

    /// Runs the block of an index.
    pub fn run(&mut self, index: [u32; 3]) -> Done {
        self.begin(index);
        let program = &self.block.launch.program.instructions;
        while self.warps.iter().any(|warp| !warp.groups.is_empty()) {
            for warp in &mut self.warps {
                warp.run(program, &mut self.block, TURN)?;
            }
            if self.warps.iter().all(|warp| !is_ready(warp)) {
                self.pass_barrier()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, index: [u32; 3]) {
        self.block.index = index;
        // What nobody wrote is NaN in every type of numbers.
        self.block.shared.fill(0xff);
        self.block.accesses.clear();
        let launch = self.block.launch;
        let threads = launch.threads.iter().product::<u32>() as usize;
        for warp in &mut self.warps {
            let lanes = (threads - warp.number * LANES).min(LANES);
            let lanes = Mask::MAX >> (LANES - lanes);
            let at = launch.program.start;
            warp.groups = vec![Group {
                at,
                lanes,
                waiting: Waiting::No,
            }];
            warp.all = lanes;
            warp.returns.iter_mut().for_each(Vec::clear);
            for (register, special) in &launch.program.specials {
                let value = |lane| special.value(launch, index, warp.number * LANES + lane);
                warp.registers[*register] = std::array::from_fn(value);
            }
        }
    }

    /// Lets all threads on that wait at a barrier, if all that there are do.
    fn pass_barrier(&mut self) -> Done {
        let program = &self.block.launch.program.instructions;
        let threads = self.block.launch.threads.iter().product::<u32>() as usize;
        let groups = || self.warps.iter().flat_map(|warp| &warp.groups);
        let there: usize = groups()
            .map(|group| group.lanes.count_ones() as usize)
            .sum();
        let Some(first) = groups().next() else {
            return Ok(());
        };
        let line = |at: u32| program[at as usize].line;
        if there != threads {
            return Err(part_of(line(first.at), there, threads));
        }
        // Warps may be at different barriers, as after a branch that all of a warp take.
        if let Some(warp) = self.warps.iter().find(|warp| warp.groups.len() > 1) {
            let lines: Vec<_> = warp.groups.iter().map(|group| line(group.at)).collect();
            return Err(format!("threads of a warp wait at barriers of lines {lines:?}").into());
        }
        for group in self.warps.iter_mut().flat_map(|warp| &mut warp.groups) {
            group.waiting = Waiting::No;
            group.at += 1;
        }
        self.block.accesses.barrier();
        Ok(())
    }
}

fn is_ready(warp: &Warp) -> bool {
    warp.groups.iter().any(|group| group.waiting == Waiting::No)
}

fn part_of(line: u32, there: usize, threads: usize) -> Fault {
    format!("line {line}: a barrier that {there} of {threads} threads reach").into()
}

impl Special {
    /// What a special register holds for a thread of a block.
    fn value(&self, launch: &Launch, index: [u32; 3], thread: usize) -> u64 {
        let [x, y, _] = launch.threads.map(|count| count as usize);
        let lane = thread % LANES;
        match *self {
            Self::Thread(0) => (thread % x) as u64,
            Self::Thread(1) => (thread / x % y) as u64,
            Self::Thread(_) => (thread / x / y) as u64,
            Self::Threads(axis) => launch.threads[axis].into(),
            Self::Block(axis) => index[axis].into(),
            Self::Blocks(axis) => launch.grid[axis].into(),
            Self::Lane => lane as u64,
            Self::Warp => (thread / LANES) as u64,
            Self::WarpSize => LANES as u64,
            Self::Equal => 1 << lane,
            Self::Less => (1 << lane) - 1,
            Self::LessOrEqual => (2 << lane) - 1,
            Self::Greater => u64::from(Mask::MAX) & !((2 << lane) - 1),
            Self::GreaterOrEqual => u64::from(Mask::MAX) & !((1 << lane) - 1),
            Self::SharedBytes => (launch.shared + launch.program.shared) as u64,
            Self::Zero => 0,
        }
    }
}
