//! A kernel that can run: decoded instructions, and what is known before it does.

use std::collections::HashMap;

use crate::decode;
use crate::memory::Space;
use crate::names::number;
use crate::text::{Function, Raw, Source, Variable};
use crate::warp::{Action, Instruction, Pred, Reg};

/// A register that the device writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// The place of a thread in its block, along an axis; and how many there are.
    Thread(usize),
    Threads(usize),
    Block(usize),
    Blocks(usize),
    Lane,
    Warp,
    WarpSize,
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    SharedBytes,
    Zero,
}

impl Special {
    pub fn named(name: &str) -> Option<Self> {
        let axis = |axis: &str| ["x", "y", "z"].iter().position(|a| *a == axis);
        Some(match name.split_once('.') {
            Some(("%tid", a)) => Self::Thread(axis(a)?),
            Some(("%ntid", a)) => Self::Threads(axis(a)?),
            Some(("%ctaid", a)) => Self::Block(axis(a)?),
            Some(("%nctaid", a)) => Self::Blocks(axis(a)?),
            _ => match name {
                "%laneid" => Self::Lane,
                "%warpid" => Self::Warp,
                "WARP_SZ" => Self::WarpSize,
                "%lanemask_eq" => Self::Equal,
                "%lanemask_lt" => Self::Less,
                "%lanemask_le" => Self::LessOrEqual,
                "%lanemask_gt" => Self::Greater,
                "%lanemask_ge" => Self::GreaterOrEqual,
                "%dynamic_smem_size" | "%total_smem_size" => Self::SharedBytes,
                "%clock" | "%clock64" | "%globaltimer" | "%smid" => Self::Zero,
                _ => return None,
            },
        })
    }
}

#[derive(Default)]
pub struct Program {
    pub name: String,
    /// Where each parameter begins, and what all take.
    pub offsets: Vec<usize>,
    pub parameter_bytes: usize,
    pub instructions: Vec<Instruction>,
    pub start: u32,
    pub registers: usize,
    pub predicates: usize,
    pub constants: Vec<(Reg, u64)>,
    pub specials: Vec<(Reg, Special)>,
    /// Bytes of a thread's own memory, and of shared memory that is there at every launch.
    pub local: usize,
    pub shared: usize,
    /// Variables of the module: kept where their addresses, which are constants, say.
    pub globals: Vec<Box<[u64]>>,
}

/// A variable: its space and address there, or the host's.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    pub space: Space,
    pub address: u64,
    pub bytes: usize,
}

/// What is known while instructions are decoded.
pub struct Decoder<'a> {
    pub program: Program,
    pub source: &'a Source,
    pub function: &'a Function,
    /// By the function's name and scope, the name last; those of the module under none.
    pub symbols: HashMap<(String, usize, String), Symbol>,
    /// Where each function begins.
    pub starts: HashMap<String, u32>,
    pub registers: HashMap<String, Reg>,
    pub predicates: HashMap<String, Pred>,
    pub constants: HashMap<u64, Reg>,
    pub scope: usize,
}

/// Predicates that never and always hold.
pub const FALSE: Pred = 0;
pub const TRUE: Pred = 1;

impl Program {
    /// Reads PTX; the kernel is its first entry.
    pub fn new(text: &str) -> Result<Self, String> {
        let source = Source::read(text)?;
        let entry = source.functions.iter().find(|function| function.is_entry);
        let entry = entry.ok_or("no .entry")?;
        let mut decoder = Decoder {
            program: Program {
                name: entry.name.clone(),
                predicates: 2,
                ..Program::default()
            },
            source: &source,
            function: entry,
            symbols: HashMap::new(),
            starts: HashMap::new(),
            registers: HashMap::new(),
            predicates: HashMap::new(),
            constants: HashMap::new(),
            scope: 0,
        };
        decoder.variables()?;
        for function in &source.functions {
            decoder.function(function)?;
        }
        Ok(decoder.program)
    }
}

fn place(variable: &Variable, end: &mut usize) -> usize {
    let at = end.next_multiple_of(variable.align.max(1));
    *end = at + variable.bytes;
    at
}

impl<'a> Decoder<'a> {
    /// Gives every variable an address.
    fn variables(&mut self) -> Result<(), String> {
        let source = self.source;
        let mut at = 0;
        for function in &source.functions {
            self.starts.insert(function.name.clone(), at);
            at += function.body.len() as u32;
            if function.is_entry && function.name == self.program.name {
                self.program.start = self.starts[&function.name];
            }
            self.of_function(function);
        }
        for (space, variable) in &source.variables {
            let symbol = match space.as_str() {
                // Dynamic memory is behind all other, of an unknown length.
                ".shared" if variable.bytes == 0 => continue,
                ".shared" => self.symbol(Space::Shared, variable),
                _ => self.global(variable)?,
            };
            self.symbols
                .insert((String::new(), 0, variable.name.clone()), symbol);
        }
        self.program.shared = self.program.shared.next_multiple_of(16);
        for (_, variable) in source.variables.iter().filter(|(_, v)| v.bytes == 0) {
            let symbol = self.symbol(Space::Shared, variable);
            self.symbols
                .insert((String::new(), 0, variable.name.clone()), symbol);
        }
        Ok(())
    }

    fn of_function(&mut self, function: &Function) {
        let is_kernel = function.name == self.program.name;
        let add = |this: &mut Self, space, variable: &Variable, scope| {
            let symbol = this.symbol(space, variable);
            let key = (function.name.clone(), scope, variable.name.clone());
            this.symbols.insert(key, symbol);
            symbol
        };
        for parameter in function.parameters.iter().chain(&function.returned) {
            let space = if is_kernel {
                Space::Parameters
            } else {
                Space::Local
            };
            let symbol = add(self, space, parameter, 0);
            if is_kernel {
                self.program.offsets.push(symbol.address as usize);
            }
        }
        for (space, variable, scope) in &function.variables {
            let shared = space == ".shared";
            add(
                self,
                if shared { Space::Shared } else { Space::Local },
                variable,
                *scope,
            );
        }
    }

    fn symbol(&mut self, space: Space, variable: &Variable) -> Symbol {
        let end = match space {
            Space::Shared => &mut self.program.shared,
            Space::Parameters => &mut self.program.parameter_bytes,
            _ => &mut self.program.local,
        };
        let address = place(variable, end) as u64;
        Symbol {
            space,
            address,
            bytes: variable.bytes,
        }
    }

    /// A variable of the module, with its first values.
    fn global(&mut self, variable: &Variable) -> Result<Symbol, String> {
        let mut bytes = Vec::with_capacity(variable.bytes);
        for value in &variable.values {
            let value = number(value).ok_or_else(|| {
                format!(
                    "`{value}`, of which {} is made, is no number",
                    variable.name
                )
            })?;
            bytes.extend_from_slice(&value.to_le_bytes()[..variable.element]);
        }
        bytes.resize(variable.bytes.next_multiple_of(8), 0);
        let words = bytes
            .chunks(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        let words: Box<[u64]> = words.collect();
        let address = words.as_ptr() as u64;
        self.program.globals.push(words);
        Ok(Symbol {
            space: Space::Global,
            address,
            bytes: variable.bytes,
        })
    }

    fn function(&mut self, function: &'a Function) -> Result<(), String> {
        self.function = function;
        // Names of registers are those of their function.
        self.registers.clear();
        self.predicates.clear();
        if function.body.is_empty() {
            return Err(format!("`{}` has no instructions", function.name));
        }
        for raw in &function.body {
            self.scope = raw.scope;
            let decoded = self.instruction(raw);
            let decoded =
                decoded.map_err(|why| format!("line {}: `{}`: {why}", raw.line, raw.text));
            self.program.instructions.push(decoded?);
        }
        Ok(())
    }

    fn instruction(&mut self, raw: &Raw) -> Result<Instruction, String> {
        let (returned, text) = match raw.text.strip_prefix("@returned ") {
            Some(text) => (true, text),
            None => (false, raw.text.as_str()),
        };
        let (guard, text) = match text.strip_prefix('@') {
            Some(rest) => {
                let (guard, text) = rest.split_once(' ').ok_or("a guard alone")?;
                let negated = guard.starts_with('!');
                (
                    Some((self.predicate(guard.trim_start_matches('!'))?, negated)),
                    text,
                )
            }
            None => (None, text),
        };
        let (opcode, operands) = text.split_once(' ').unwrap_or((text, ""));
        let action = if returned {
            Action::Do(self.returned(operands)?)
        } else {
            decode::action(self, opcode, operands)?
        };
        Ok(Instruction {
            guard,
            action,
            line: raw.line,
        })
    }
}
