//! Expressions as steps, for evaluations that run them.

use std::hash::{Hash, Hasher};

use super::expr::{Binary, Expr, Leaf, Node, Seen, Unary};

/// Expressions in the order to compute them, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tape {
    pub ops: Vec<Op>,
}

/// One step; its operands are the indices of earlier steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Op {
    Leaf(Leaf),
    Constant(f64),
    Unary(Unary, usize),
    Binary(Binary, usize, usize),
    Select(usize, usize, usize),
    /// The same value; a constant to autodiff.
    Detach(usize),
}

// Steps tell kernels apart, for which equal bits are equal constants.
impl Eq for Op {}

impl Hash for Op {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match *self {
            Self::Leaf(leaf) => leaf.hash(state),
            Self::Constant(value) => value.to_bits().hash(state),
            Self::Unary(op, x) => (op, x).hash(state),
            Self::Binary(op, x, y) => (op, x, y).hash(state),
            Self::Select(c, x, y) => (c, x, y).hash(state),
            Self::Detach(x) => x.hash(state),
        }
    }
}

impl Expr {
    /// Calls `f` with every leaf.
    pub(crate) fn each_leaf(&self, f: &mut impl FnMut(Leaf)) {
        let mut tape = Tape::default();
        tape.push(self);
        for op in tape.ops {
            if let Op::Leaf(leaf) = op {
                f(leaf);
            }
        }
    }
}

impl Tape {
    /// The step that computes `expr`, appended unless it is there.
    pub fn push(&mut self, expr: &Expr) -> usize {
        self.push_once(expr, &mut Seen::new())
    }

    fn push_once(&mut self, expr: &Expr, seen: &mut Seen<usize>) -> usize {
        if let Some(&step) = seen.get(&expr.address()) {
            return step;
        }
        let mut push = |x: &Expr| self.push_once(x, seen);
        let op = match expr.node() {
            Node::Leaf(leaf) => Op::Leaf(*leaf),
            Node::Constant(value) => Op::Constant(*value),
            Node::Unary(op, x) => Op::Unary(*op, push(x)),
            Node::Binary(op, x, y) => Op::Binary(*op, push(x), push(y)),
            Node::Select(c, x, y) => Op::Select(push(c), push(x), push(y)),
            Node::Detach(x) => Op::Detach(push(x)),
        };
        let step = self
            .ops
            .iter()
            .position(|known| *known == op)
            .unwrap_or_else(|| {
                self.ops.push(op);
                self.ops.len() - 1
            });
        seen.insert(expr.address(), step);
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_steps_are_computed_once() {
        let c = Expr::leaf(Leaf::Similarity);
        let mut tape = Tape::default();
        let x = tape.push(&(&c * 2.0).exp());
        let y = tape.push(&((&c * 2.0).exp() + 1.0));
        assert_eq!((x, y, tape.ops.len()), (3, 5, 6));
    }
}
