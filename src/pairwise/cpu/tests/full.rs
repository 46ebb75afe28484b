//! Products in f32 by the processor's instructions.

use super::precision::random;
use super::*;
use crate::pairwise::cpu::matrix_units::{BLOCK, Multiplied, Product, SIDE, STRIP, Units};

#[test]
fn units_of_f32_multiply_blocks_as_defined() {
    let Some(units) = Units::of_f32() else {
        eprintln!("this processor has no such instructions: nothing to check");
        return;
    };
    let steps = 3;
    let strip = |seed: u64| random(steps * BLOCK, seed);
    let [lefts, rights] = [[1, 2], [3, 4]].map(|seeds| seeds.map(strip));
    for (rows, accumulate) in [1, 8, 9, 31, 32]
        .into_iter()
        .flat_map(|r| [(r, false), (r, true)])
    {
        let before = random(SIDE * SIDE, 5);
        let mut sums = before.clone();
        // SAFETY: there are 32 rows of 32 elements.
        unsafe {
            units.ready().multiply(&Product {
                multiplied: &Multiplied::new(1, 1, true),
                steps,
                left: lefts.each_ref().map(|x| bytemuck::cast_slice(x)),
                right: rights.each_ref().map(|x| bytemuck::cast_slice(x)),
                dst: sums.as_mut_ptr(),
                stride: SIDE,
                accumulate,
                rows,
            });
        }
        for (k, &sum) in sums.iter().enumerate().take(rows * SIDE) {
            let (i, j) = (k / SIDE, k % SIDE);
            let (left, right) = (&lefts[i / STRIP], &rights[j / STRIP]);
            let product = |s: usize| {
                let (block, s) = (s / STRIP * BLOCK, s % STRIP);
                let x = left[block + i % STRIP * STRIP + s];
                f64::from(x) * f64::from(right[block + s * STRIP + j % STRIP])
            };
            let start = if accumulate { before[k] } else { 0.0 };
            let exact = f64::from(start) + (0..steps * STRIP).map(product).sum::<f64>();
            assert!(
                (f64::from(sum) - exact).abs() < 1e-5,
                "{i} {j}: {sum} for {exact}"
            );
        }
    }
}

/// Sums over more pairs than are packed at a time, in blocks of several tiles.
#[test]
fn long_sums_in_f32_agree_with_f64() {
    let problem = Problem::new(700, 600, 12);
    let has_kinks = |form: &Form| {
        let all = format!("{:?}", form.reductions);
        all.contains("Max") || all.contains("Step")
    };
    let forms = forms(false).into_iter().filter(|form| !has_kinks(form));
    let distances = forms.map(|form| {
        let limits = Limits {
            block: 512 * 640 * 4,
            ..form.limits
        };
        let form = Form { limits, ..form };
        let found = evaluate::<f32>(&form, &problem, None, 0);
        distance(&found, &evaluate::<f64>(&form, &problem, None, 0))
    });
    let distances: Vec<_> = distances.collect();
    assert!(
        distances.len() > 1 && distances.iter().all(|&x| x < 1e-4),
        "{distances:?}"
    );
}
