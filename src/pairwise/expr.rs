//! What an objective computes for one pair, as an expression that every backend can run.
//!
//! The leaves are the pair's similarity, values of its row and of its column, and scalars; the
//! inner nodes are the operators and the functions of [`Expr`]. An expression is written once: the
//! CPU runs it on vectors in cache, other backends on blocks of tensors, and its derivative is
//! worked out from it, so that an objective never states a gradient.

use std::collections::HashMap;
use std::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::Arc;

/// A value of each pair, as an expression; cheap to clone.
///
/// Built from the leaves that [`Pairs`](super::Pairs) hands out, with `+ - * /` (between
/// expressions, and with `f64` on the right) and the methods below. A product with the constant 0
/// is
/// 0, also of NaN.
#[derive(Clone, Debug)]
pub struct Expr(Arc<Node>);

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

/// What is known of the nodes of an expression: each is visited once, however often it is shared.
pub(super) type Seen<T> = HashMap<*const Node, T>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Leaf(Leaf),
    Constant(f64),
    Unary(Unary, Expr),
    Binary(Binary, Expr, Expr),
    /// The second where the first is not 0, else the third.
    Select(Expr, Expr, Expr),
    /// Its value, without a derivative.
    Detach(Expr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Leaf {
    Similarity,
    /// The similarity of the embeddings of a teacher.
    Teacher(usize),
    Row(usize),
    Column(usize),
    Scalar(usize),
    /// 1 where the mask holds, else 0.
    Mask,
    /// 1 where row and column have the same index, else 0.
    Diagonal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Unary {
    Neg,
    Exp,
    Log,
    Sqrt,
    Relu,
    /// 1 above 0, 0 elsewhere, NaN for NaN.
    Step,
    Softplus,
    Sigmoid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// 1 for equal values, else 0.
    Equal,
}

impl Unary {
    /// The value at `x`: what every evaluation must agree with.
    pub(crate) fn at(self, x: f64) -> f64 {
        match self {
            Self::Neg => -x,
            Self::Exp => x.exp(),
            Self::Log => x.ln(),
            Self::Sqrt => x.sqrt(),
            Self::Relu => {
                if x <= 0.0 {
                    0.0
                } else {
                    x
                }
            }
            Self::Step => {
                if x > 0.0 {
                    1.0
                } else if x <= 0.0 {
                    0.0
                } else {
                    x
                }
            }
            Self::Softplus => (if x <= 0.0 { 0.0 } else { x }) + (-x.abs()).exp().ln_1p(),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        }
    }
}

impl Expr {
    pub(crate) fn leaf(leaf: Leaf) -> Self {
        Self(Arc::new(Node::Leaf(leaf)))
    }

    /// The same value for every pair.
    pub fn constant(value: f64) -> Self {
        Self(Arc::new(Node::Constant(value)))
    }

    /// 1 where row and column have the same index, else 0.
    pub fn diagonal() -> Self {
        Self::leaf(Leaf::Diagonal)
    }

    pub(crate) fn node(&self) -> &Node {
        &self.0
    }

    pub(crate) fn as_constant(&self) -> Option<f64> {
        match *self.0 {
            Node::Constant(value) => Some(value),
            _ => None,
        }
    }

    fn unary(op: Unary, x: Self) -> Self {
        match x.as_constant() {
            Some(value) => Self::constant(op.at(value)),
            None => Self(Arc::new(Node::Unary(op, x))),
        }
    }

    fn binary(op: Binary, x: Self, y: Self) -> Self {
        match (op, x.as_constant(), y.as_constant()) {
            (_, Some(x), Some(y)) => Self::constant(match op {
                Binary::Add => x + y,
                Binary::Sub => x - y,
                Binary::Mul => x * y,
                Binary::Div => x / y,
                Binary::Equal => f64::from(x == y),
            }),
            (Binary::Add, Some(0.0), _) => y,
            (Binary::Add | Binary::Sub, _, Some(0.0)) => x,
            (Binary::Mul, Some(1.0), _) => y,
            (Binary::Mul | Binary::Div, _, Some(1.0)) => x,
            (Binary::Mul, Some(0.0), _) | (Binary::Mul, _, Some(0.0)) => Self::constant(0.0),
            _ => Self(Arc::new(Node::Binary(op, x, y))),
        }
    }

    /// `e^x`.
    pub fn exp(&self) -> Self {
        Self::unary(Unary::Exp, self.clone())
    }

    /// Natural logarithm.
    pub fn log(&self) -> Self {
        Self::unary(Unary::Log, self.clone())
    }

    /// Square root.
    pub fn sqrt(&self) -> Self {
        Self::unary(Unary::Sqrt, self.clone())
    }

    /// `x²`.
    pub fn square(&self) -> Self {
        self.clone() * self.clone()
    }

    /// `max(x, 0)`; the derivative at 0 is 0.
    pub fn relu(&self) -> Self {
        Self::unary(Unary::Relu, self.clone())
    }

    /// 1 where `x > 0`, else 0; no derivative.
    pub fn step(&self) -> Self {
        Self::unary(Unary::Step, self.clone())
    }

    /// `log(1 + e^x)`, exact for large `|x|`.
    pub fn softplus(&self) -> Self {
        Self::unary(Unary::Softplus, self.clone())
    }

    /// `1 / (1 + e^{−x})`.
    pub fn sigmoid(&self) -> Self {
        Self::unary(Unary::Sigmoid, self.clone())
    }

    /// 1 where the two are equal, else 0; no derivative.
    pub fn equal(&self, other: &Self) -> Self {
        Self::binary(Binary::Equal, self.clone(), other.clone())
    }

    /// `then` where `condition` is not 0, `otherwise` elsewhere. What is not chosen has no
    /// influence, whatever its value. (Under [`Evaluation::Dense`](super::Evaluation::Dense) its
    /// derivative must be finite: Burn's autodiff multiplies it by 0.)
    pub fn select(condition: &Self, then: &Self, otherwise: &Self) -> Self {
        if then == otherwise {
            return then.clone();
        }
        match condition.as_constant() {
            Some(0.0) => otherwise.clone(),
            Some(_) => then.clone(),
            None => Self(Arc::new(Node::Select(
                condition.clone(),
                then.clone(),
                otherwise.clone(),
            ))),
        }
    }

    /// Left out of log-sum-exps and maxima where `condition` is not 0: −∞ there, unchanged
    /// elsewhere.
    pub fn except(&self, condition: &Self) -> Self {
        Self::select(condition, &Self::constant(f64::NEG_INFINITY), self)
    }

    /// Its value, as a constant to the gradient.
    pub fn detach(&self) -> Self {
        match self.0.as_ref() {
            Node::Constant(_) | Node::Detach(_) => self.clone(),
            _ => Self(Arc::new(Node::Detach(self.clone()))),
        }
    }

    /// The derivative by a leaf; `None` where it is 0 everywhere.
    pub(crate) fn derivative(&self, by: Leaf) -> Option<Self> {
        self.derivative_once(by, &mut Seen::new())
    }

    fn derivative_once(&self, by: Leaf, seen: &mut Seen<Option<Self>>) -> Option<Self> {
        if let Some(known) = seen.get(&self.address()) {
            return known.clone();
        }
        let derivative = self.derivative_of_node(by, seen);
        seen.insert(self.address(), derivative.clone());
        derivative
    }

    fn derivative_of_node(&self, by: Leaf, seen: &mut Seen<Option<Self>>) -> Option<Self> {
        let sum = |x: Option<Self>, y: Option<Self>| match (x, y) {
            (Some(x), Some(y)) => Some(x + y),
            (x, y) => x.or(y),
        };
        match self.node() {
            Node::Leaf(leaf) => (*leaf == by).then(|| Self::constant(1.0)),
            Node::Constant(_) | Node::Detach(_) => None,
            Node::Unary(op, x) => {
                let outer = match op {
                    Unary::Neg => Self::constant(-1.0),
                    Unary::Exp => self.clone(),
                    Unary::Log => Self::constant(1.0) / x.clone(),
                    Unary::Sqrt => Self::constant(0.5) / self.clone(),
                    Unary::Relu => x.step(),
                    Unary::Step => return None,
                    Unary::Softplus => x.sigmoid(),
                    Unary::Sigmoid => self.clone() * (Self::constant(1.0) - self.clone()),
                };
                Some(outer * x.derivative_once(by, seen)?)
            }
            Node::Binary(op, x, y) => {
                let (dx, dy) = (x.derivative_once(by, seen), y.derivative_once(by, seen));
                match op {
                    Binary::Add => sum(dx, dy),
                    Binary::Sub => sum(dx, dy.map(|d| -d)),
                    Binary::Mul => sum(dx.map(|d| d * y.clone()), dy.map(|d| x.clone() * d)),
                    Binary::Div => sum(
                        dx.map(|d| d / y.clone()),
                        dy.map(|d| -(self.clone() * d / y.clone())),
                    ),
                    Binary::Equal => None,
                }
            }
            Node::Select(condition, x, y) => {
                let (dx, dy) = (x.derivative_once(by, seen), y.derivative_once(by, seen));
                if dx.is_none() && dy.is_none() {
                    return None;
                }
                let or_zero = |d: Option<Self>| d.unwrap_or_else(|| Self::constant(0.0));
                Some(Self::select(condition, &or_zero(dx), &or_zero(dy)))
            }
        }
    }

    /// The same expression with other leaves.
    pub(crate) fn map_leaves(&self, f: &impl Fn(Leaf) -> Self) -> Self {
        self.map_leaves_once(f, &mut Seen::new())
    }

    fn map_leaves_once(&self, f: &impl Fn(Leaf) -> Self, seen: &mut Seen<Self>) -> Self {
        if let Some(known) = seen.get(&self.address()) {
            return known.clone();
        }
        let mut map = |x: &Self| x.map_leaves_once(f, seen);
        let mapped = match self.node() {
            Node::Leaf(leaf) => f(*leaf),
            Node::Constant(_) => self.clone(),
            Node::Unary(op, x) => Self::unary(*op, map(x)),
            Node::Binary(op, x, y) => Self::binary(*op, map(x), map(y)),
            Node::Select(c, x, y) => Self::select(&map(c), &map(x), &map(y)),
            Node::Detach(x) => map(x).detach(),
        };
        seen.insert(self.address(), mapped.clone());
        mapped
    }

    /// Identifies a node, which several expressions may share.
    pub(super) fn address(&self) -> *const Node {
        Arc::as_ptr(&self.0)
    }

    /// What is left of it on the diagonal, or off it.
    pub(crate) fn where_diagonal(&self, diagonal: bool) -> Self {
        self.map_leaves(&|leaf| match leaf {
            Leaf::Diagonal => Self::constant(f64::from(diagonal)),
            other => Self::leaf(other),
        })
    }

    /// The value of the pair (j, i) where this is that of (i, j).
    pub(crate) fn transposed(&self) -> Self {
        self.map_leaves(&|leaf| {
            Self::leaf(match leaf {
                Leaf::Row(k) => Leaf::Column(k),
                Leaf::Column(k) => Leaf::Row(k),
                other => other,
            })
        })
    }
}

/// An operator between expressions, owned or borrowed, and with an `f64` on the right.
macro_rules! operator {
    ($trait:ident, $method:ident) => {
        operator!($trait, $method, Expr, Expr, |x| x);
        operator!($trait, $method, Expr, &Expr, |x| x.clone());
        operator!($trait, $method, &Expr, Expr, |x| x);
        operator!($trait, $method, &Expr, &Expr, |x| x.clone());
        operator!($trait, $method, Expr, f64, |x| Expr::constant(x));
        operator!($trait, $method, &Expr, f64, |x| Expr::constant(x));
    };
    ($trait:ident, $method:ident, $left:ty, $right:ty, |$x:ident| $expr:expr) => {
        impl $trait<$right> for $left {
            type Output = Expr;
            fn $method(self, $x: $right) -> Expr {
                Expr::binary(Binary::$trait, self.clone(), $expr)
            }
        }
    };
}
operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);
operator!(Div, div);

impl Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        Expr::unary(Unary::Neg, self)
    }
}

impl Neg for &Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        -self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value where the similarity is `c` and row 0 is `u`.
    fn at(expr: &Expr, c: f64, u: f64) -> f64 {
        let value = expr.map_leaves(&|leaf| match leaf {
            Leaf::Similarity => Expr::constant(c),
            Leaf::Row(0) => Expr::constant(u),
            other => panic!("{other:?}"),
        });
        match value.node() {
            Node::Detach(x) => x.as_constant().unwrap(),
            _ => value
                .as_constant()
                .unwrap_or_else(|| panic!("{value:?} is not a number")),
        }
    }

    #[test]
    fn derivatives_match_finite_differences() {
        let (c, u) = (Expr::leaf(Leaf::Similarity), Expr::leaf(Leaf::Row(0)));
        let cases = [
            &c * &u,
            &c / &(&u + 2.0),
            (&u * 3.0) / (&c + 4.0),
            (&c - &u).exp(),
            (&c + 3.0).log(),
            (&c + 3.0).sqrt(),
            (&c * 2.0 - 0.3).relu().square(),
            (&c * &u).softplus(),
            (&c * -3.0).sigmoid(),
            Expr::select(&c.step(), &c.exp(), &(&c * 2.0)),
            -(&c * &c * &c),
        ];
        for expr in cases {
            let slope = expr.derivative(Leaf::Similarity).unwrap();
            for x in [-0.9, -0.2, 0.4, 1.1] {
                let h = 1e-6;
                let expected = (at(&expr, x + h, 0.7) - at(&expr, x - h, 0.7)) / (2.0 * h);
                let actual = at(&slope, x, 0.7);
                assert!(
                    (actual - expected).abs() < 1e-7 * (1.0 + expected.abs()),
                    "{expr:?} at {x}: {actual} against {expected}"
                );
            }
        }
    }

    #[test]
    fn what_is_detached_or_not_there_has_no_derivative() {
        let c = Expr::leaf(Leaf::Similarity);
        assert_eq!(c.exp().detach().derivative(Leaf::Similarity), None);
        assert_eq!(c.exp().derivative(Leaf::Row(0)), None);
        assert_eq!(c.step().derivative(Leaf::Similarity), None);
    }

    #[test]
    fn off_the_diagonal_nothing_is_left_of_what_is_only_on_it() {
        let c = Expr::leaf(Leaf::Similarity);
        let positive = Expr::select(&Expr::diagonal(), &(&c * 2.0), &Expr::constant(0.0));
        assert_eq!(positive.where_diagonal(false), Expr::constant(0.0));
        assert_eq!(c.except(&Expr::diagonal()).where_diagonal(false), c);
    }

    #[test]
    fn nan_stays_nan() {
        for op in [Unary::Relu, Unary::Step, Unary::Softplus, Unary::Sigmoid] {
            assert!(op.at(f64::NAN).is_nan(), "{op:?}");
        }
    }
}
