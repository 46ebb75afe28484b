//! What operands name: registers, constants, addresses, labels.

use crate::block::{LOCAL, PARAMETERS, SHARED};
use crate::memory::Space;
use crate::program::{Decoder, FALSE, Special, Symbol, TRUE};
use crate::warp::{Pred, Reg};

impl Decoder<'_> {
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
    pub fn address_of(&self, text: &str) -> Result<(Symbol, u64), String> {
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
