//! A warp: 32 threads that take the same instruction at a time, as far as they are at the same one.

use crate::block::Block;

pub const LANES: usize = 32;
pub type Lanes = [u64; LANES];
/// A bit for each lane.
pub type Mask = u32;
/// The number of a register of 64 bits a lane.
pub type Reg = usize;
/// The number of a predicate, which is a mask.
pub type Pred = usize;

/// Why a kernel cannot go on.
pub type Fault = Box<str>;
pub type Done = Result<(), Fault>;
/// What an instruction does for the lanes of a mask.
pub type Exec = Box<dyn Fn(&mut Warp, &mut Block, Mask) -> Done + Send + Sync>;

/// What becomes of a warp's threads at an instruction.
pub enum Action {
    Do(Exec),
    /// By lanes that must be there at once: those of a register, or all.
    Together(Option<Reg>, Exec),
    Branch(u32),
    /// By the number in a register.
    Table(Reg, Vec<u32>),
    /// With its arguments, which are copied.
    Call(u32, Exec),
    Return,
    Exit,
    Barrier,
    Trap,
}

pub struct Instruction {
    /// A predicate, and whether it must not hold.
    pub guard: Option<(Pred, bool)>,
    pub action: Action,
    pub line: u32,
}

/// Why threads are not taken further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    No,
    /// For other lanes of the warp.
    Lanes,
    Barrier,
}

/// Threads at the same instruction.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub at: u32,
    pub lanes: Mask,
    pub waiting: Waiting,
}

pub struct Warp {
    pub number: usize,
    pub registers: Vec<Lanes>,
    pub predicates: Vec<Mask>,
    /// Whether the last sum of a word of a longer number had a carry.
    pub carries: Mask,
    /// Each lane's local memory and parameters of calls, one after another.
    pub local: Vec<u8>,
    pub returns: [Vec<u32>; LANES],
    pub groups: Vec<Group>,
    /// The lanes that there are.
    pub all: Mask,
    /// The allocation that was found last.
    pub found: (u64, u64),
}

/// The lanes of a mask.
pub fn each(mask: Mask) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 == 1)
}

impl Warp {
    /// Writes the lanes of a mask.
    #[inline(always)]
    pub fn set(&mut self, to: Reg, mask: Mask, values: Lanes) {
        let register = &mut self.registers[to];
        if mask == Mask::MAX {
            *register = values;
            return;
        }
        for lane in 0..LANES {
            if mask >> lane & 1 == 1 {
                register[lane] = values[lane];
            }
        }
    }

    #[inline(always)]
    pub fn set_predicate(&mut self, to: Pred, mask: Mask, values: Mask) {
        let predicate = &mut self.predicates[to];
        *predicate = *predicate & !mask | values & mask;
    }

    /// Takes threads further until all wait, are done, or have taken `budget` steps.
    pub fn run(&mut self, program: &[Instruction], block: &mut Block, budget: usize) -> Done {
        for _ in 0..budget {
            // The furthest behind first, so that those that took another path come together again.
            let ready = self.groups.iter().enumerate();
            let ready = ready.filter(|(_, group)| group.waiting == Waiting::No);
            let Some((k, _)) = ready.min_by_key(|(_, group)| group.at) else {
                return self.stuck(program);
            };
            let group = self.groups.swap_remove(k);
            self.go(group, program, block)
                .map_err(|(at, lanes, why)| -> Fault {
                    let thread = self.number * LANES + lanes.trailing_zeros() as usize;
                    let line = program.get(at as usize).map_or(0, |i| i.line);
                    format!("line {line}, thread {thread} of its block: {why}").into()
                })?;
            if self.groups.is_empty() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// An error, if threads wait for others of their warp that do not come.
    fn stuck(&self, program: &[Instruction]) -> Done {
        let waits = self
            .groups
            .iter()
            .find(|group| group.waiting == Waiting::Lanes);
        match waits {
            Some(group) => Err(format!(
                "line {}: lanes {:x} of warp {} wait for others that do not come",
                program[group.at as usize].line, group.lanes, self.number
            )
            .into()),
            None => Ok(()),
        }
    }

    /// Takes a group further until it waits, is done, or another one is further behind.
    fn go(
        &mut self,
        mut group: Group,
        program: &[Instruction],
        block: &mut Block,
    ) -> Result<(), (u32, Mask, Fault)> {
        // As many steps at a time, that other warps come on where one waits in a loop.
        for _ in 0..100_000 {
            if !self.groups.is_empty() && self.joins_or_gives_way(&mut group) {
                self.groups.push(group);
                return Ok(());
            }
            let Some(instruction) = program.get(group.at as usize) else {
                return Err((group.at, group.lanes, "the end of a function".into()));
            };
            let lanes = match instruction.guard {
                None => group.lanes,
                Some((p, false)) => group.lanes & self.predicates[p],
                Some((p, true)) => group.lanes & !self.predicates[p],
            };
            if lanes == 0 {
                group.at += 1;
                continue;
            }
            if let Action::Do(exec) = &instruction.action {
                exec(self, block, lanes).map_err(|why| (group.at, lanes, why))?;
                group.at += 1;
                continue;
            }
            let left = self.control(group, lanes, &instruction.action, block);
            match left.map_err(|why| (group.at, lanes, why))? {
                Some(left) => group = left,
                None => return Ok(()),
            }
        }
        self.groups.push(group);
        Ok(())
    }

    /// Takes up groups at the same instruction; whether one that is ready is further behind.
    fn joins_or_gives_way(&mut self, group: &mut Group) -> bool {
        let mut gives_way = false;
        self.groups.retain(|other| {
            let same = other.at == group.at && other.waiting != Waiting::Barrier;
            if same {
                group.lanes |= other.lanes;
            }
            gives_way |= !same && other.waiting == Waiting::No && other.at < group.at;
            !same
        });
        gives_way
    }

    /// What becomes of a group whose `lanes` take an action; those to go on with at once.
    fn control(
        &mut self,
        group: Group,
        lanes: Mask,
        action: &Action,
        block: &mut Block,
    ) -> Result<Option<Group>, Fault> {
        let at = |at, lanes| Group {
            at,
            lanes,
            waiting: Waiting::No,
        };
        let rest = group.lanes & !lanes;
        let next = group.at + 1;
        // What the others of the group do.
        let others = (rest != 0).then(|| at(next, rest));
        match action {
            Action::Do(_) => unreachable!("done already"),
            Action::Trap => Err("trap".into()),
            Action::Branch(target) => {
                self.groups.extend(others);
                Ok(Some(at(*target, lanes)))
            }
            Action::Table(index, targets) => {
                self.groups.extend(others);
                for lane in each(lanes) {
                    let index = self.registers[*index][lane] as u32 as usize;
                    let target = targets.get(index).ok_or("a branch beyond its table")?;
                    match self.groups.iter_mut().find(|g| g.at == *target) {
                        Some(same) if same.waiting == Waiting::No => same.lanes |= 1 << lane,
                        _ => self.groups.push(at(*target, 1 << lane)),
                    }
                }
                Ok(None)
            }
            Action::Call(target, arguments) => {
                arguments(self, block, lanes)?;
                self.groups.extend(others);
                for lane in each(lanes) {
                    self.returns[lane].push(next);
                }
                Ok(Some(at(*target, lanes)))
            }
            Action::Return => {
                self.groups.extend(others);
                for lane in each(lanes) {
                    let Some(back) = self.returns[lane].pop() else {
                        continue; // The kernel's end.
                    };
                    match self.groups.iter_mut().find(|g| g.at == back) {
                        Some(same) if same.waiting == Waiting::No => same.lanes |= 1 << lane,
                        _ => self.groups.push(at(back, 1 << lane)),
                    }
                }
                Ok(None)
            }
            Action::Exit => Ok(others),
            Action::Barrier => {
                self.groups.extend(others);
                self.wait(Group {
                    waiting: Waiting::Barrier,
                    ..at(group.at, lanes)
                });
                Ok(None)
            }
            Action::Together(members, exec) => {
                let members = match members {
                    Some(register) => {
                        self.registers[*register][lanes.trailing_zeros() as usize] as Mask
                            & self.all
                    }
                    None => Mask::MAX,
                };
                if members & !lanes != 0 {
                    self.groups.extend(others);
                    self.groups.push(Group {
                        waiting: Waiting::Lanes,
                        ..at(group.at, lanes)
                    });
                    return Ok(None);
                }
                exec(self, block, lanes)?;
                Ok(Some(at(next, group.lanes)))
            }
        }
    }

    /// A group at a barrier, with what of its warp is there already.
    fn wait(&mut self, group: Group) {
        let mut there = self.groups.iter_mut();
        match there.find(|g| g.at == group.at && g.waiting == Waiting::Barrier) {
            Some(same) => same.lanes |= group.lanes,
            None => self.groups.push(group),
        }
    }
}
