//! A kernel that can run: decoded instructions, and what is known before it does.

use std::collections::HashMap;

use crate::block::{LOCAL, PARAMETERS, SHARED};
use crate::decode;
use crate::memory::Space;
use crate::text::{Function, Raw, Source, Variable, split};
use crate::warp::{Action, Exec, Instruction, Pred, Reg};

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
    fn named(name: &str) -> Option<Self> {
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
    source: &'a Source,
    function: &'a Function,
    /// By the function's name and scope, the name last; those of the module under none.
    symbols: HashMap<(String, usize, String), Symbol>,
    /// Where each function begins.
    starts: HashMap<String, u32>,
    registers: HashMap<String, Reg>,
    predicates: HashMap<String, Pred>,
    constants: HashMap<u64, Reg>,
    scope: usize,
}

/// Predicates that never and always hold.
const FALSE: Pred = 0;
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
        let last_is_open = |body: &[Raw]| body.is_empty();
        if last_is_open(&function.body) {
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

    // What operands name. ------------------------------------------------------------------------

    fn is_predicate(&self, name: &str) -> bool {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        self.function
            .predicates
            .iter()
            .any(|p| p == stem || p == name)
    }

    /// Whether it is a register whose name has no `%`.
    fn is_named_register(&self, name: &str) -> bool {
        self.function
            .registers
            .iter()
            .any(|register| register == name)
    }

    /// A register to be written; `_` is one that nobody reads.
    pub fn register(&mut self, name: &str) -> Result<Reg, String> {
        let is_known = name.starts_with('%') || name == "_" || self.is_named_register(name);
        if !is_known || self.is_predicate(name) {
            return Err(format!("`{name}` is no register to write"));
        }
        if let Some(register) = self.registers.get(name) {
            return Ok(*register);
        }
        let register = self.fresh();
        self.registers.insert(name.into(), register);
        Ok(register)
    }

    pub fn fresh(&mut self) -> Reg {
        self.program.registers += 1;
        self.program.registers - 1
    }

    /// A register that holds a number.
    pub fn constant(&mut self, value: u64) -> Reg {
        if let Some(register) = self.constants.get(&value) {
            return *register;
        }
        let register = self.fresh();
        self.constants.insert(value, register);
        self.program.constants.push((register, value));
        register
    }

    /// A register with the value of an operand.
    pub fn operand(&mut self, text: &str) -> Result<Reg, String> {
        if let Some(special) = Special::named(text) {
            let known = self
                .program
                .specials
                .iter()
                .find(|(_, known)| *known == special);
            if let Some((register, _)) = known {
                return Ok(*register);
            }
            let register = self.fresh();
            self.program.specials.push((register, special));
            return Ok(register);
        }
        if text.starts_with('%') || self.is_named_register(text) {
            return self.register(text);
        }
        if let Some(value) = number(text) {
            return Ok(self.constant(value));
        }
        let (symbol, offset) = self.address_of(text)?;
        Ok(self.constant(symbol.address.wrapping_add(offset)))
    }

    pub fn predicate(&mut self, name: &str) -> Result<Pred, String> {
        if !self.is_predicate(name) {
            return match number(name) {
                Some(0) => Ok(FALSE),
                Some(_) => Ok(TRUE),
                None => Err(format!("`{name}` is no predicate")),
            };
        }
        if let Some(predicate) = self.predicates.get(name) {
            return Ok(*predicate);
        }
        let predicate = self.program.predicates;
        self.program.predicates += 1;
        self.predicates.insert(name.into(), predicate);
        Ok(predicate)
    }

    /// A symbol, and what is added to its address.
    fn address_of(&self, text: &str) -> Result<(Symbol, u64), String> {
        let (name, offset) = match text.split_once('+') {
            Some((name, offset)) => (name, number(offset).ok_or("no offset")?),
            None => (text, 0),
        };
        let find = |function: &str, scope| {
            self.symbols
                .get(&(function.to_owned(), scope, name.to_owned()))
        };
        let mut scope = self.scope;
        loop {
            match find(&self.function.name, scope) {
                Some(symbol) => return Ok((*symbol, offset)),
                None if scope == 0 => break,
                None => scope = self.function.scopes[scope],
            }
        }
        let found = find("", 0).ok_or_else(|| format!("`{name}` is not declared"))?;
        Ok((*found, offset))
    }

    /// `[base+offset]`: a register, what is added to it, and the space where it is a symbol's.
    pub fn address(&mut self, text: &str) -> Result<(Reg, u64, Option<Space>), String> {
        let inner = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        let inner = inner.ok_or_else(|| format!("`{text}` is no address"))?;
        let (base, offset) = match inner.split_once('+') {
            Some((base, offset)) => (base.trim(), number(offset).ok_or("no offset")?),
            None => (inner.trim(), 0),
        };
        if base.starts_with('%') {
            return Ok((self.register(base)?, offset, None));
        }
        if let Some(number) = number(base) {
            return Ok((self.constant(number), offset, None));
        }
        let (symbol, _) = self.address_of(base)?;
        Ok((self.constant(symbol.address), offset, Some(symbol.space)))
    }

    pub fn label(&self, name: &str) -> Result<u32, String> {
        let at = self
            .function
            .labels
            .get(name)
            .ok_or_else(|| format!("no label `{name}`"))?;
        Ok(self.starts[&self.function.name] + *at as u32)
    }

    pub fn targets(&self, table: &str) -> Result<Vec<u32>, String> {
        let names = self.function.tables.get(table);
        let names = names.ok_or_else(|| format!("no table `{table}`"))?;
        names.iter().map(|name| self.label(name)).collect()
    }

    // Calls. -------------------------------------------------------------------------------------

    /// `(returned), name, (arguments)`: the function, and copies of parameters there.
    pub fn call(&mut self, operands: &str) -> Result<Action, String> {
        let (_, name, arguments) = parts_of_call(operands)?;
        let target = self.starts.get(&name).copied();
        let target = target.ok_or_else(|| format!("`{name}` is not in the module"))?;
        let callee = self.source.functions.iter().find(|f| f.name == name);
        let callee = callee.ok_or("no such function")?;
        let mut copies = Vec::new();
        for (argument, parameter) in arguments.iter().zip(&callee.parameters) {
            let (from, _) = self.address_of(argument)?;
            let key = (name.clone(), 0, parameter.name.clone());
            copies.push((
                from.address as usize,
                self.symbols[&key].address as usize,
                from.bytes,
            ));
        }
        let copies: Exec = copying(copies);
        // The arguments are copied as a part of the call.
        Ok(Action::Call(target, copies))
    }

    /// What a call returned, copied to where its caller wants it.
    fn returned(&mut self, operands: &str) -> Result<Exec, String> {
        let (to, name, _) = parts_of_call(operands)?;
        let callee = self.source.functions.iter().find(|f| f.name == name);
        let returned = callee.and_then(|f| f.returned.as_ref());
        let mut copies = Vec::new();
        if let (Some(to), Some(from)) = (to, returned) {
            let (to, _) = self.address_of(&to)?;
            let from = self.symbols[&(name, 0, from.name.clone())];
            copies.push((from.address as usize, to.address as usize, to.bytes));
        }
        Ok(copying(copies))
    }

    /// The value of a symbol as a generic address.
    pub fn window(space: Space) -> u64 {
        match space {
            Space::Shared => SHARED,
            Space::Local => LOCAL,
            Space::Parameters => PARAMETERS,
            Space::Global | Space::Generic => 0,
        }
    }
}

/// Copies pieces of each lane's own memory.
fn copying(copies: Vec<(usize, usize, usize)>) -> Exec {
    Box::new(move |warp, _, mask| {
        let room = warp.local.len() / crate::warp::LANES;
        for lane in crate::warp::each(mask) {
            for &(from, to, bytes) in &copies {
                let start = lane * room;
                warp.local
                    .copy_within(start + from..start + from + bytes, start + to);
            }
        }
        Ok(())
    })
}

fn parts_of_call(operands: &str) -> Result<(Option<String>, String, Vec<String>), String> {
    let mut pieces = split(operands).into_iter().peekable();
    let inside = |piece: &str| {
        let inner = piece.strip_prefix('(')?.strip_suffix(')')?;
        Some(
            split(inner)
                .into_iter()
                .map(String::from)
                .collect::<Vec<_>>(),
        )
    };
    let returned = pieces.peek().and_then(|piece| inside(piece));
    if returned.is_some() {
        pieces.next();
    }
    let name = pieces.next().ok_or("a call of nothing")?.to_owned();
    let arguments = pieces.next().and_then(inside).unwrap_or_default();
    Ok((
        returned.and_then(|names| names.into_iter().next()),
        name,
        arguments,
    ))
}

/// The bits of a number as PTX writes it.
pub fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let digits = digits.trim_end_matches('U');
    let bits = match digits.get(..2) {
        Some("0f" | "0F" | "0d" | "0D" | "0x" | "0X") => {
            u64::from_str_radix(&digits[2..], 16).ok()?
        }
        _ if digits.contains('.') => digits.parse::<f64>().ok()?.to_bits(),
        _ => digits.parse::<u64>().ok()?,
    };
    Some(if negative { bits.wrapping_neg() } else { bits })
}
