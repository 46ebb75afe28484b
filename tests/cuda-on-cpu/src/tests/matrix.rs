//! Products by matrix units.

use super::Kernel;
use crate::number::{Bf16, F16, Float, Rounding};

/// A product of 16 × 16 matrices, the first by row in steps of 24 elements, the second by column.
fn product(kind: &str, registers: usize) -> String {
    let vector = |from: usize, count: usize| {
        let names: Vec<_> = (from..from + count).map(|k| format!("%r{k}")).collect();
        format!("{{{}}}", names.join(", "))
    };
    let (a, b, c) = (vector(10, registers), vector(20, registers), vector(30, 8));
    let types = if kind == "f16" {
        "f32.f32".into()
    } else {
        format!("f32.{kind}.{kind}.f32")
    };
    format!(
        "wmma.load.a.sync.aligned.row.m16n16k16.global.{kind} {a}, [%rd1], 32;\n\
         add.s64 %rd2, %rd1, 1024;\n\
         wmma.load.b.sync.aligned.col.m16n16k16.global.{kind} {b}, [%rd2], 16;\n\
         add.s64 %rd3, %rd1, 1536;\n\
         wmma.load.c.sync.aligned.row.m16n16k16.global.f32 {c}, [%rd3], 16;\n\
         wmma.mma.sync.aligned.row.col.m16n16k16.{types} {c}, {a}, {b}, {c};\n\
         wmma.store.d.sync.aligned.row.m16n16k16.global.f32 [%rd3], {c}, 16;"
    )
}

#[test]
fn matrix_units_multiply_as_a_plain_loop() {
    for (kind, registers) in [("bf16", 4), ("f16", 8)] {
        let half = |k: usize| ((k * 37 % 61) as f64 - 30.0) / 8.0;
        let bits = |k: usize| match kind {
            "f16" => F16::rounded(half(k), Rounding::Nearest).0,
            _ => Bf16::rounded(half(k), Rounding::Nearest).0,
        };
        let mut words = vec![0u32; 640];
        for k in 0..768 {
            words[k / 2] |= u32::from(bits(k)) << (16 * (k % 2));
        }
        for k in 0..256 {
            words[384 + k] = (k as f32).to_bits();
        }
        let found = Kernel::new(&product(kind, registers)).of(&words);
        for (i, j) in (0..256).map(|k| (k / 16, k % 16)) {
            let sum = (0..16)
                .map(|k| half(32 * i + k) * half(512 + 16 * j + k))
                .sum::<f64>();
            let expected = sum + (16 * i + j) as f64;
            let found = f32::from_bits(found[384 + 16 * i + j]);
            assert_eq!(f64::from(found), expected, "{kind}: {i}, {j}");
        }
    }
}

#[test]
fn matrix_units_see_a_layout_that_is_not_the_factors() {
    let mut words = vec![0u32; 640];
    words[..384].fill(0x3f80_4000);
    let right = product("bf16", 4);
    let wrong = right.replace("mma.sync.aligned.row.col", "mma.sync.aligned.col.col");
    assert_ne!(
        Kernel::new(&right).of(&words),
        Kernel::new(&wrong).of(&words)
    );
    let short = right.replace("[%rd1], 32", "[%rd1], 17");
    Kernel::new(&short).fails(640, "misaligned");
    let apart = right.replace(
        "add.s64 %rd3",
        "cvt.u64.u32 %rd9, %r1;\nadd.s64 %rd1, %rd1, %rd9;\nadd.s64 %rd3",
    );
    Kernel::new(&apart).fails(640, "different matrices");
}
