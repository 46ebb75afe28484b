//! PTX as text: statements, and the functions and variables that they declare.

use std::collections::HashMap;

/// What ends a piece of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Semicolon,
    /// `name:`
    Label,
    Open,
    Close,
}

#[derive(Clone, Debug)]
pub struct Statement {
    pub line: u32,
    pub text: String,
    pub end: End,
}

/// Directives at the head of a module that end with their line.
const LINES: [&str; 6] = [
    ".version",
    ".target",
    ".address_size",
    ".loc",
    ".file",
    ".section",
];

/// The statements of a text without its comments.
pub fn statements(source: &str) -> Result<Vec<Statement>, String> {
    let mut found = Vec::new();
    let (mut text, mut start) = (String::new(), 1);
    // Braces within a statement: vectors of registers, and initial values.
    let mut depth = 0;
    for (number, line) in (1u32..).zip(source.lines()) {
        let line = line.split("//").next().unwrap_or_default();
        let word = line.split_whitespace().next().unwrap_or_default();
        if depth == 0 && LINES.contains(&word) {
            continue;
        }
        let mut letters = line.chars().peekable();
        while let Some(letter) = letters.next() {
            if text.trim().is_empty() {
                (text, start) = (String::new(), number);
            }
            let is_head = text.contains(".entry") || text.contains(".func");
            let end = match letter {
                '{' if text.is_empty() || is_head => End::Open,
                '{' => {
                    depth += 1;
                    text.push(letter);
                    continue;
                }
                '}' if depth > 0 => {
                    depth -= 1;
                    text.push(letter);
                    continue;
                }
                '}' => End::Close,
                ';' => End::Semicolon,
                ':' if is_name(text.trim()) && letters.peek() != Some(&':') => End::Label,
                other => {
                    text.push(other);
                    continue;
                }
            };
            let text = std::mem::take(&mut text)
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ");
            found.push(Statement {
                line: start,
                text,
                end,
            });
        }
        text.push(' ');
    }
    match text.trim() {
        "" => Ok(found),
        rest => Err(format!("line {start}: `{rest}` does not end")),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_$%".contains(c))
}

/// Pieces between commas that lie in no brackets.
pub fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut pieces) = (0, 0, Vec::new());
    for (at, letter) in text.char_indices() {
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                pieces.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() {
        pieces.push(last);
    }
    pieces
}

/// Bytes of a type such as `.b32`.
pub fn bytes_of(name: &str) -> Option<usize> {
    let digits = name.trim_start_matches('.').trim_start_matches("bf");
    let digits = digits.trim_start_matches(['b', 'u', 's', 'f']);
    let bits: usize = digits.parse().ok()?;
    matches!(bits, 8 | 16 | 32 | 64 | 128).then_some(bits / 8)
}

/// A variable of memory, or a parameter: `.param .align 8 .b8 name[64]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub bytes: usize,
    pub align: usize,
    pub is_array: bool,
    /// Of each element, and what they are at first.
    pub element: usize,
    pub values: Vec<String>,
}

impl Variable {
    pub fn read(text: &str) -> Result<Self, String> {
        let (declared, values) = match text.split_once('=') {
            Some((declared, values)) => (declared.trim(), values.trim()),
            None => (text, ""),
        };
        let (head, name) = declared
            .rsplit_once(' ')
            .ok_or("a variable without a type")?;
        let (name, count) = match name.split_once('[') {
            Some((name, count)) => (name, count.trim_end_matches(']').parse().unwrap_or(0)),
            None => (name, 1),
        };
        let words: Vec<&str> = head.split(' ').collect();
        let element = words.iter().find_map(|word| bytes_of(word));
        let element = element.ok_or_else(|| format!("`{text}` has no known type"))?;
        let align = words.iter().rposition(|word| *word == ".align");
        // A pointer's `.align` is that of what it points to.
        let align = align.filter(|_| !words.contains(&".ptr"));
        let align = align
            .and_then(|k| words.get(k + 1)?.parse().ok())
            .unwrap_or(element);
        let values = values.trim_start_matches('{').trim_end_matches('}');
        Ok(Self {
            name: name.into(),
            bytes: element * count,
            align,
            is_array: declared.ends_with(']'),
            element,
            values: split(values).into_iter().map(String::from).collect(),
        })
    }
}

/// An instruction, not decoded.
#[derive(Clone, Debug)]
pub struct Raw {
    pub line: u32,
    pub text: String,
    /// The names of parameters of calls that it sees, as those of its function are unique.
    pub scope: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Function {
    pub name: String,
    pub is_entry: bool,
    pub parameters: Vec<Variable>,
    pub returned: Option<Variable>,
    /// `.reqntid`, or `.maxntid`, and which.
    pub threads: Option<([u32; 3], bool)>,
    /// By space: `.local`, `.shared`, `.param`; and the scope of the latter.
    pub variables: Vec<(String, Variable, usize)>,
    /// The scope around each.
    pub scopes: Vec<usize>,
    pub predicates: Vec<String>,
    pub registers: Vec<String>,
    pub body: Vec<Raw>,
    pub labels: HashMap<String, usize>,
    pub tables: HashMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Default)]
pub struct Source {
    pub functions: Vec<Function>,
    /// Of the module, by space.
    pub variables: Vec<(String, Variable)>,
}

impl Source {
    pub fn read(text: &str) -> Result<Self, String> {
        let statements = statements(text)?;
        let mut source = Self::default();
        let mut left = statements.into_iter();
        while let Some(statement) = left.next() {
            let at = |why: String| format!("line {}: {why}", statement.line);
            let text = &statement.text;
            match statement.end {
                End::Open => source
                    .functions
                    .push(Function::read(text, &mut left).map_err(at)?),
                // Declared before it is defined.
                End::Semicolon if text.contains(".func") || text.contains(".pragma") => {}
                End::Semicolon => source.variables.push(variable_of_module(text).map_err(at)?),
                End::Label | End::Close => return Err(at(format!("`{text}` outside a function"))),
            }
        }
        Ok(source)
    }
}

fn variable_of_module(text: &str) -> Result<(String, Variable), String> {
    let spaces = [".shared", ".global", ".const"];
    let space = spaces
        .into_iter()
        .find(|space| text.split(' ').any(|word| word == *space));
    let space = space.ok_or_else(|| format!("`{text}` is no known directive"))?;
    Ok((space.into(), Variable::read(text)?))
}

impl Function {
    /// The first entry of a text, without its body.
    pub fn first_entry(text: &str) -> Result<Self, String> {
        let at = text.find(".entry").ok_or("no PTX with an entry")?;
        let head = text[at..].split('{').next().unwrap_or_default();
        let lines = head
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default());
        let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
        Self::of_head(&words.join(" "))
    }

    fn read(head: &str, left: &mut impl Iterator<Item = Statement>) -> Result<Self, String> {
        let mut function = Self::of_head(head)?;
        let mut scope = 0;
        function.scopes.push(0);
        for statement in left {
            let at = |why: String| format!("line {}: {why}", statement.line);
            match statement.end {
                End::Open => {
                    function.scopes.push(scope);
                    scope = function.scopes.len() - 1;
                }
                End::Close if scope == 0 => return Ok(function),
                End::Close => scope = function.scopes[scope],
                End::Label => {
                    function.labels.insert(statement.text, function.body.len());
                }
                End::Semicolon => {
                    let Statement { line, text, .. } = statement;
                    function.add(line, text, scope).map_err(at)?;
                }
            }
        }
        Err(format!("`{}` has no end", function.name))
    }

    fn of_head(head: &str) -> Result<Self, String> {
        let is_entry = head.contains(".entry");
        let word = if is_entry { ".entry" } else { ".func" };
        let (_, rest) = head
            .split_once(word)
            .ok_or_else(|| format!("a block after `{head}`"))?;
        let mut rest = rest.trim();
        let mut returned = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let (inside, after) = inner.split_once(')').ok_or("a parenthesis is not closed")?;
            returned = Some(Variable::read(inside.trim())?);
            rest = after.trim();
        }
        let end = rest.find(['(', ' ', '.']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let (parameters, directives) = match rest.trim().strip_prefix('(') {
            Some(inner) => inner.split_once(')').ok_or("a parenthesis is not closed")?,
            None => ("", rest),
        };
        let parameters = split(parameters).into_iter().map(Variable::read);
        let mut threads = None;
        for (word, exact) in [(".maxntid", false), (".reqntid", true)] {
            if let Some((_, after)) = directives.split_once(word) {
                let mut each = [1; 3];
                let numbers = after.split('.').next().unwrap_or_default();
                for (to, number) in each.iter_mut().zip(numbers.split(',')) {
                    *to = number
                        .trim()
                        .parse()
                        .map_err(|_| format!("`{word}{after}`"))?;
                }
                threads = Some((each, exact));
            }
        }
        Ok(Self {
            name: name.into(),
            is_entry,
            parameters: parameters.collect::<Result<_, _>>()?,
            returned,
            threads,
            ..Self::default()
        })
    }

    fn add(&mut self, line: u32, text: String, scope: usize) -> Result<(), String> {
        if text.is_empty() || text.starts_with(".pragma") {
            return Ok(());
        }
        if let Some(registers) = text.strip_prefix(".reg .pred ") {
            let names = registers
                .split(',')
                .map(|name| name.trim().split('<').next().unwrap_or_default().to_owned());
            self.predicates.extend(names);
            return Ok(());
        }
        if let Some(registers) = text.strip_prefix(".reg ") {
            let names = registers
                .split_once(' ')
                .map_or("", |(_, names)| names)
                .split(',');
            // Those with a `%` are known by it.
            self.registers
                .extend(names.map(|name| name.trim().to_owned()));
            return Ok(());
        }
        if let Some(targets) = text.strip_prefix(".branchtargets ") {
            // It has a label, and is no instruction.
            let here = self.body.len();
            let (label, _) = self
                .labels
                .iter()
                .find(|(name, at)| **at == here && name.contains("brx"))
                .ok_or("targets without a label")?;
            let targets = split(targets).into_iter().map(String::from).collect();
            self.tables.insert(label.clone(), targets);
            return Ok(());
        }
        for space in [".local", ".shared", ".param"] {
            if text.starts_with(space) {
                let variable = Variable::read(&text)?;
                self.variables.push((space.into(), variable, scope));
                return Ok(());
            }
        }
        if text.starts_with('.') {
            return Err(format!("`{text}` is no known directive"));
        }
        let is_call = text.starts_with("call") || text.contains(" call");
        let copy = is_call.then(|| format!("@returned {text}"));
        self.body.push(Raw { line, text, scope });
        // What is done on return from a call.
        self.body.extend(copy.map(|text| Raw { line, text, scope }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
.version 8.8
.target sm_90a
.address_size 64
.global .align 4 .b8 table[8] = {1, 2, 3, 4, 5, 6, 7, 8}; // words
.visible .entry kernel(
\t.param .u64 .ptr .global .align 16 kernel_param_0,
\t.param .align 8 .b8 kernel_param_1[40]
)
.reqntid 64, 2, 1
{
\t.reg .pred %p<3>;
\t.reg .b32 %r<5>;
// %bb.0:
\tmov.b64 \t{%r1, %r2}, %rd1;
$L__BB0_1:
\t{ // callseq 0, 0
\t.param .b64 param0;
\tst.param.b64 \t[param0], %rd1;
\t}
\tld.global.L1::evict_last.b32 %r3, [%rd1];
\t@%p1 bra \t$L__BB0_1;
\tret;
}
";

    #[test]
    fn a_module_is_read() {
        let source = Source::read(TEXT).unwrap();
        let [function] = &source.functions[..] else {
            panic!("{source:?}");
        };
        assert_eq!(
            (function.name.as_str(), function.is_entry),
            ("kernel", true)
        );
        let sizes: Vec<_> = function
            .parameters
            .iter()
            .map(|p| (p.bytes, p.is_array))
            .collect();
        assert_eq!(sizes, [(8, false), (40, true)]);
        assert_eq!(function.threads, Some(([64, 2, 1], true)));
        assert_eq!(function.labels["$L__BB0_1"], 1);
        assert_eq!(function.body.len(), 5);
        assert_eq!(function.body[0].text, "mov.b64 {%r1, %r2}, %rd1");
        assert_eq!(function.body[1].scope, 1);
        assert_eq!(function.predicates, ["%p"]);
        let (space, table) = &source.variables[0];
        assert_eq!(
            (space.as_str(), table.bytes, table.values.len()),
            (".global", 8, 8)
        );
    }

    #[test]
    fn what_is_unknown_is_named_with_its_line() {
        let error = |text: &str| Source::read(text).unwrap_err();
        assert!(error(".texref t;").contains("`.texref t` is no known directive"));
        let inside = TEXT.replace("ret;", ".odd thing;\nret;");
        let said = error(&inside);
        assert!(
            said.contains(".odd thing") && said.contains("line "),
            "{said}"
        );
        assert!(error("ret").contains("does not end"));
    }
}
