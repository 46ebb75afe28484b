//! The checks that objectives make of their arguments, and the messages they fail with.

use std::fmt;

use burn::tensor::{DType, Device, Int, Tensor};

/// A field of a config whose value cannot be used.
///
/// Returned by the `check` method of a config; `init` panics with the same message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    config: &'static str,
    field: String,
    problem: String,
}

impl ConfigError {
    pub(crate) fn new(
        config: &'static str,
        field: impl Into<String>,
        problem: impl Into<String>,
    ) -> Self {
        Self {
            config,
            field: field.into(),
            problem: problem.into(),
        }
    }

    /// The name of the config's type, or of the objective by name.
    pub fn config(&self) -> &'static str {
        self.config
    }

    /// The name of the field, or of the parameter in JSON.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// What is wrong with the field, and what it must be.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// The same error in the name of what holds the config, which knows the field by its own name.
    pub(crate) fn within(self, config: &'static str, field: impl FnOnce(&str) -> String) -> Self {
        Self {
            config,
            field: field(&self.field),
            ..self
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}` {}", self.config, self.field, self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// Checks that `value` is finite and within `low..=high`.
pub(crate) fn range(
    config: &'static str,
    field: &str,
    value: f64,
    low: f64,
    high: f64,
) -> Result<(), ConfigError> {
    if value.is_finite() && low <= value && value <= high {
        return Ok(());
    }
    let [is, at_least] = [value, low].map(number);
    let problem = if high < f64::MAX {
        format!("is {is}, it must lie in [{at_least}, {}]", number(high))
    } else if low > -f64::MAX {
        format!("is {is}, it must be finite and at least {at_least}")
    } else {
        format!("is {is}, it must be finite")
    };
    Err(ConfigError::new(config, field, problem))
}

/// A number as messages show it: with an exponent, where it had many zeros without.
pub(crate) fn number(x: f64) -> String {
    if x == 0.0 || (1e-5..1e8).contains(&x.abs()) {
        x.to_string()
    } else if f64::from(x as f32) == x {
        // The limits of f32 need no more digits than they have there.
        format!("{:e}", x as f32)
    } else {
        format!("{x:e}")
    }
}

/// The longest name that messages show whole, in characters.
pub(crate) const LONGEST_SHOWN: usize = 60;

/// What somebody wrote, as messages show it: its beginning, where it is long.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Panics with the message of the error: what `init` does with the result of `check`.
#[track_caller]
pub(crate) fn or_panic(checked: Result<(), ConfigError>) {
    if let Err(error) = checked {
        panic!("{error}");
    }
}

/// Embeddings under the name that a message gives them.
pub(crate) type Named<'a> = (&'static str, &'a Tensor<2>);

/// The two sides can be compared: non-empty, same width, dtype, device and autodiff context.
#[track_caller]
pub(crate) fn comparable(caller: &str, left: Named, right: Named) {
    for (name, tensor) in [left, right] {
        let [rows, width] = tensor.dims();
        assert!(
            rows > 0 && width > 0,
            "{caller}: `{name}` is empty, shape [{rows}, {width}]: it needs at least one row and \
             one column"
        );
    }
    let ((a, x), (b, y)) = (left, right);
    assert!(
        x.dims()[1] == y.dims()[1],
        "{caller}: `{a}` has width {}, `{b}` has width {}: both need the same embedding width",
        x.dims()[1],
        y.dims()[1]
    );
    assert!(
        x.dtype() == y.dtype(),
        "{caller}: `{a}` is {:?}, `{b}` is {:?}: cast one of them, both need the same dtype",
        x.dtype(),
        y.dtype()
    );
    together(caller, left, right);
}

/// Rows of tokens, `[N, T, D]`, can be compared: non-empty, and otherwise as [`comparable`].
#[track_caller]
pub(crate) fn comparable_tokens(
    caller: &str,
    (a, x): (&'static str, &Tensor<3>),
    (b, y): (&'static str, &Tensor<3>),
) {
    let [x, y] = [(a, x), (b, y)].map(|(name, tensor)| {
        let shape @ [rows, tokens, width] = tensor.dims();
        assert!(
            rows > 0 && tokens > 0 && width > 0,
            "{caller}: `{name}` is empty, shape {shape:?}: it needs at least one row, one token a \
             row and one column"
        );
        tensor.clone().reshape([rows * tokens, width])
    });
    comparable(caller, (a, &x), (b, &y));
}

/// The two are on one device, in one autodiff context.
#[track_caller]
pub(crate) fn together(caller: &str, (a, x): Named, (b, y): Named) {
    let (dx, dy) = (x.device(), y.device());
    assert!(
        dx == dy,
        "{caller}: `{a}` is on {dx:?}, `{b}` is on {dy:?}: move one of them with `to_device`"
    );
    assert!(
        dx.is_autodiff() == dy.is_autodiff(),
        "{caller}: one of `{a}` and `{b}` is on an autodiff device, the other is not: \
         use `.autodiff()` on the plain one, or `.inner()` on both to evaluate without gradients"
    );
}

/// The two sides are pairs: comparable, and row `i` of one belongs to row `i` of the other.
#[track_caller]
pub(crate) fn paired(caller: &str, left: Named, right: Named) {
    comparable(caller, left, right);
    let (rows, others) = (left.1.dims()[0], right.1.dims()[0]);
    assert!(
        rows == others,
        "{caller}: `{}` has {rows} rows, `{}` has {others}: row i of one belongs to row i of the \
         other, both need the same number",
        left.0,
        right.0
    );
}

/// The two have the same number of rows.
#[track_caller]
pub(crate) fn same_rows(caller: &str, (a, x): Named, (b, y): Named) {
    let (rows, others) = (x.dims()[0], y.dims()[0]);
    assert!(
        rows == others,
        "{caller}: `{a}` has {rows} rows, `{b}` has {others}: both need the same number"
    );
}

/// There is an id of each row.
#[track_caller]
pub(crate) fn labelled(
    caller: &str,
    (name, ids): (&str, &Tensor<1, Int>),
    (embeddings, rows): Named,
) {
    let (count, rows) = (ids.dims()[0], rows.dims()[0]);
    assert!(
        count == rows,
        "{caller}: `{name}` has {count} elements, `{embeddings}` has {rows} rows: one id a row"
    );
}

/// An objective with parameters was built where the embeddings are.
#[track_caller]
pub(crate) fn built_on(caller: &str, own: &Device, embeddings: &Tensor<2>) {
    let theirs = embeddings.device();
    assert!(
        *own == theirs && own.is_autodiff() == theirs.is_autodiff(),
        "{caller}: the objective is on {own:?}, the embeddings are on {theirs:?}: \
         build it on their device, move it there with `to_device` or `fork`, \
         or use `.valid()` on the module to evaluate without gradients"
    );
}

/// The dtype that similarities are computed in: f64 for f64, f32 for everything else.
pub(crate) fn compute_dtype(input: DType) -> DType {
    match input {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}
