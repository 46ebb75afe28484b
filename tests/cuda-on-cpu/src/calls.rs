//! Calls of functions that are not inlined. Each has its registers and its memory once, for none
//! calls itself.

use crate::program::Decoder;
use crate::text::split;
use crate::warp::{Action, Exec};

impl Decoder<'_> {
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
    pub fn returned(&mut self, operands: &str) -> Result<Exec, String> {
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
