//! Kernels of a few lines, whose results are known.

mod matrix;

use crate::launch::{Shape, run};
use crate::program::Program;

/// Words that a kernel reads and writes: its first parameter is their address.
struct Kernel<'a> {
    body: &'a str,
    head: &'a str,
    threads: u32,
    blocks: u32,
    shared: u32,
}

impl<'a> Kernel<'a> {
    /// Of one warp, where `%rd1` is the address of all words, and `%r1` the thread's place.
    fn new(body: &'a str) -> Self {
        Self {
            body,
            head: "",
            threads: 32,
            blocks: 1,
            shared: 0,
        }
    }

    fn text(&self) -> String {
        let Self { body, head, .. } = self;
        format!(
            ".version 8.8\n.target sm_90\n.address_size 64\n{head}\n.visible .entry kernel(\n\
             .param .u64 .ptr .global .align 16 kernel_param_0\n)\n{{\n\
             .reg .pred %p<9>;\n.reg .b16 %rs<20>;\n.reg .b32 %r<99>;\n.reg .b64 %rd<20>;\n\
             ld.param.b64 %rd1, [kernel_param_0];\nmov.u32 %r1, %tid.x;\n{body}\nret;\n}}\n"
        )
    }

    fn run(&self, words: &mut [u32]) -> Result<(), String> {
        let program = Program::new(&self.text())?;
        let shape = Shape {
            grid: [self.blocks, 1, 1],
            threads: [self.threads, 1, 1],
            shared: self.shared,
        };
        // Where allocations begin, so that alignment is no accident.
        let mut room = vec![0; words.len() + 64];
        let offset = room.as_ptr().align_offset(256);
        let aligned = &mut room[offset..][..words.len()];
        aligned.copy_from_slice(words);
        let start = aligned.as_mut_ptr() as u64;
        let ranges = vec![(start, start + size_of_val(words) as u64)];
        let result = run(&program, shape, &[start.to_le_bytes().to_vec()], ranges);
        words.copy_from_slice(aligned);
        result.map_err(String::from)
    }

    /// What it makes of these words.
    #[track_caller]
    fn of(&self, words: &[u32]) -> Vec<u32> {
        let mut words = words.to_vec();
        self.run(&mut words).unwrap();
        words
    }

    #[track_caller]
    fn fails(&self, words: usize, message: &str) {
        let error = self.run(&mut vec![0; words]).expect_err("no fault");
        assert!(
            error.contains(message),
            "`{error}` does not say `{message}`"
        );
    }
}

/// What one instruction, or more, make of `%r2`, `%r3` and `%r4`, in `%r5`.
#[track_caller]
fn one(body: &str, [a, b, c]: [u32; 3]) -> u32 {
    let body = format!(
        "ld.global.v2.b32 {{%r2, %r3}}, [%rd1];\nld.global.b32 %r4, [%rd1+8];\n{body}\n\
         st.global.b32 [%rd1+12], %r5;"
    );
    Kernel {
        threads: 1,
        ..Kernel::new(&body)
    }
    .of(&[a, b, c, 0])[3]
}

#[track_caller]
fn floats(body: &str, operands: [f32; 3]) -> f32 {
    f32::from_bits(one(body, operands.map(f32::to_bits)))
}

/// Stores `%r5` of each thread in its word.
const STORE: &str = "mul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd3, %rd1, %rd2;\n\
                     st.global.b32 [%rd3], %r5;";

#[test]
fn integers_are_computed_by_their_type() {
    let minus = |x: i32| x as u32;
    for (body, operands, expected) in [
        ("add.s32 %r5, %r2, %r3;", [minus(-3), 5, 0], 2),
        ("mul.hi.u32 %r5, %r2, %r3;", [1 << 31, 6, 0], 3),
        (
            "mul.hi.s32 %r5, %r2, %r3;",
            [minus(-(1 << 30)), 8, 0],
            minus(-2),
        ),
        (
            "mad.lo.s32 %r5, %r2, %r3, %r4;",
            [3, minus(-4), 5],
            minus(-7),
        ),
        (
            "mul.wide.s32 %rd5, %r2, %r3; cvt.u32.u64 %r5, %rd5;",
            [minus(-3), 4, 0],
            minus(-12),
        ),
        ("div.s32 %r5, %r2, %r3;", [minus(-7), 2, 0], minus(-3)),
        ("rem.u32 %r5, %r2, %r3;", [7, 4, 0], 3),
        ("shr.s32 %r5, %r2, %r3;", [minus(-8), 40, 0], minus(-1)),
        ("shr.u32 %r5, %r2, %r3;", [8, 40, 0], 0),
        ("shl.b32 %r5, %r2, 4;", [3, 0, 0], 48),
        ("shf.l.wrap.b32 %r5, %r2, %r3, %r4;", [0x8000_0000, 1, 1], 3),
        ("bfe.u32 %r5, %r2, 4, 8;", [0xabcd, 0, 0], 0xbc),
        ("bfe.s32 %r5, %r2, 4, 4;", [0x0080, 0, 0], minus(-8)),
        (
            "bfi.b32 %r5, %r2, %r3, 8, 4;",
            [0xf7, 0xffff_0000, 0],
            0xffff_0700,
        ),
        (
            "prmt.b32 %r5, %r2, %r3, 0x5410;",
            [0x1111_2222, 0x3333_4444, 0],
            0x4444_2222,
        ),
        (
            "prmt.b32 %r5, %r2, %r3, 0x0009;",
            [0x0000_8000, 0, 0],
            0x0000_00ff,
        ),
        ("clz.b32 %r5, %r2;", [0x10, 0, 0], 27),
        (
            "min.u16x2 %r5, %r2, %r3;",
            [0x0001_ffff, 0x0002_0003, 0],
            0x0001_0003,
        ),
        (
            "max.s16x2 %r5, %r2, %r3;",
            [0x0001_ffff, 0x0002_0003, 0],
            0x0002_0003,
        ),
        ("popc.b32 %r5, %r2;", [0x1011, 0, 0], 3),
        ("lop3.b32 %r5, %r2, %r3, %r4, 0x96;", [1, 3, 5], 7),
        (
            "add.cc.u32 %r6, %r2, %r3; addc.u32 %r5, %r4, 0;",
            [minus(-1), 1, 7],
            8,
        ),
        (
            "mad.lo.cc.u32 %r6, %r2, %r3, %r4; madc.hi.u32 %r5, %r2, %r3, 0;",
            [1 << 31, 4, 0],
            2,
        ),
        (
            "setp.lt.u32 %p1, %r2, %r3; selp.b32 %r5, 1, 2, %p1;",
            [minus(-1), 1, 0],
            2,
        ),
        (
            "setp.lt.s32 %p1, %r2, %r3; selp.b32 %r5, 1, 2, %p1;",
            [minus(-1), 1, 0],
            1,
        ),
        (
            "mov.b32 {%rs1, %rs2}, %r2; mov.b32 %r5, {%rs2, %rs1};",
            [0x1234_5678, 0, 0],
            0x5678_1234,
        ),
        (
            "mov.pred %p1, -1; mov.pred %p2, 0; selp.b32 %r6, 4, 8, %p1; selp.b32 %r7, 1, 2, %p2; \
          or.b32 %r5, %r6, %r7;",
            [0; 3],
            6,
        ),
        ("cvt.s32.s8 %r5, %r2;", [0xff, 0, 0], minus(-1)),
        ("cvt.sat.u8.s32 %r5, %r2;", [300, 0, 0], 255),
    ] {
        assert_eq!(one(body, operands), expected, "{body} of {operands:x?}");
    }
}

#[test]
fn floating_point_numbers_are_rounded_as_asked() {
    let third = 1.0f32 / 3.0;
    for (body, operands, expected) in [
        ("add.rn.f32 %r5, %r2, %r3;", [1.0, 1e-8, 0.0], 1.0),
        (
            "add.rp.f32 %r5, %r2, %r3;",
            [1.0, 1e-8, 0.0],
            1.0 + f32::EPSILON,
        ),
        (
            "add.rm.f32 %r5, %r2, %r3;",
            [1.0, -1e-8, 0.0],
            1.0 - f32::EPSILON / 2.0,
        ),
        (
            "add.rz.f32 %r5, %r2, %r3;",
            [-1.0, 1e-8, 0.0],
            -1.0 + f32::EPSILON / 2.0,
        ),
        (
            "fma.rn.f32 %r5, %r2, %r3, %r4;",
            [third, 3.0, -1.0],
            third.mul_add(3.0, -1.0),
        ),
        (
            "fma.rm.f32 %r5, %r2, %r3, %r4;",
            [-1.0, 1e-8, 1.0],
            1.0 - f32::EPSILON / 2.0,
        ),
        ("mul.ftz.f32 %r5, %r2, %r3;", [1e-30, 1e-10, 0.0], 0.0),
        ("mul.f32 %r5, %r2, %r3;", [1e-30, 1e-10, 0.0], 1e-40),
        ("cvt.sat.f32.f32 %r5, %r2;", [7.0, 0.0, 0.0], 1.0),
        ("cvt.rni.f32.f32 %r5, %r2;", [2.5, 0.0, 0.0], 2.0),
        (
            "cvt.rzi.s32.f32 %r6, %r2; cvt.rn.f32.s32 %r5, %r6;",
            [-2.7, 0.0, 0.0],
            -2.0,
        ),
        (
            "cvt.rzi.s32.f32 %r6, %r2; cvt.rn.f32.s32 %r5, %r6;",
            [f32::NAN, 0.0, 0.0],
            0.0,
        ),
        ("min.f32 %r5, %r2, %r3;", [f32::NAN, 2.0, 0.0], 2.0),
        ("div.rn.f32 %r5, %r2, %r3;", [1.0, 3.0, 0.0], third),
        ("ex2.approx.ftz.f32 %r5, %r2;", [-3.0, 0.0, 0.0], 0.125),
        ("mov.b32 %r5, 0f3FC00000;", [0.0; 3], 1.5),
        ("neg.f32 %r5, %r2;", [0.0; 3], -0.0),
    ] {
        let found = floats(body, operands);
        assert_eq!(
            found.to_bits(),
            expected.to_bits(),
            "{body} of {operands:?}: {found:e}"
        );
    }
    assert!(floats("max.NaN.f32 %r5, %r2, %r3;", [1.0, f32::NAN, 0.0]).is_nan());
}

#[test]
fn comparisons_with_nan_hold_as_their_names_say() {
    for (name, of_numbers, of_nan) in [
        ("lt", true, false),
        ("ltu", true, true),
        ("ge", false, false),
        ("geu", false, true),
        ("ne", true, false),
        ("neu", true, true),
        ("equ", false, true),
        ("num", true, false),
        ("nan", false, true),
    ] {
        let body = format!("setp.{name}.f32 %p1, %r2, %r3; selp.b32 %r5, 1, 0, %p1;");
        let found = |b: f32| one(&body, [1.0, b, 0.0].map(f32::to_bits)) == 1;
        assert_eq!(
            [found(2.0), found(f32::NAN)],
            [of_numbers, of_nan],
            "{name}"
        );
    }
}

#[test]
fn halves_are_packed_and_rounded_once() {
    let pair = one(
        "cvt.rn.bf16x2.f32 %r5, %r2, %r3;",
        [1.5f32, -2.0, 0.0].map(f32::to_bits),
    );
    assert_eq!(pair, 0x3fc0_c000);
    // 1 + 2⁻⁸ is between two bf16, and ties to the even one; the other half is exact.
    let fused = "fma.rn.bf16x2 %r5, %r2, %r3, %r4;";
    assert_eq!(
        one(fused, [0x3f80_3f80, 0x3f80_3f80, 0x3b80_3c00]),
        0x3f80_3f81
    );
    assert_eq!(
        one("add.rn.f16x2 %r5, %r2, %r3;", [0x3c00_4000, 0x3c00_3c00, 0]),
        0x4000_4200
    );
    let convert = "mov.b32 {%rs1, _}, %r2; cvt.f32.bf16 %r5, %rs1;";
    assert_eq!(one(convert, [0x4049, 0, 0]), 0x4049_0000);
    let tf32 = floats("cvt.rna.tf32.f32 %r5, %r2;", [1.0 + 1.0 / 2048.0, 0.0, 0.0]);
    assert_eq!(tf32, 1.0 + 1.0 / 1024.0);
}

#[test]
fn branches_that_part_a_warp_come_together_again() {
    // Odd lanes take a loop of as many turns as their place, the others wait for them at the vote.
    let body = format!(
        "mov.b32 %r5, 0;\nand.b32 %r6, %r1, 1;\nsetp.eq.b32 %p1, %r6, 0;\n@%p1 bra $L_even;\n\
         mov.b32 %r7, %r1;\n$L_turn:\nadd.s32 %r5, %r5, 2;\nadd.s32 %r7, %r7, -1;\n\
         setp.ne.b32 %p2, %r7, 0;\n@%p2 bra $L_turn;\n$L_even:\nactivemask.b32 %r8;\n\
         setp.eq.b32 %p3, %r8, -1;\nvote.sync.all.pred %p4, %p3, -1;\n\
         shfl.sync.bfly.b32 %r9, %r5, 1, 31, -1;\nadd.s32 %r5, %r5, %r9;\n\
         @!%p4 mov.b32 %r5, 999;\n{STORE}"
    );
    let words = Kernel::new(&body).of(&[0; 32]);
    let expected: Vec<u32> = (0..32).map(|lane| 2 * (lane | 1)).collect();
    assert_eq!(words, expected);
}

#[test]
fn a_shuffle_that_a_lane_never_reaches_is_a_fault() {
    let body = "setp.eq.b32 %p1, %r1, 3;\n@%p1 ret;\nshfl.sync.idx.b32 %r5, %r1, 0, 31, -1;";
    Kernel::new(body).fails(1, "wait for others that do not come");
}

/// Each thread hands its number on through shared memory.
const RELAY: &str = "shl.b32 %r6, %r1, 2;\nmov.b32 %r7, words;\nadd.s32 %r8, %r7, %r6;\n\
     st.shared.b32 [%r8], %r1;\nBARRIER\nxor.b32 %r9, %r6, 128;\nadd.s32 %r10, %r7, %r9;\n\
     ld.shared.b32 %r5, [%r10];\n";
const WORDS: &str = ".extern .shared .align 16 .b8 words[];";

fn relay(body: &str) -> Kernel<'_> {
    Kernel {
        head: WORDS,
        threads: 64,
        shared: 256,
        ..Kernel::new(body)
    }
}

#[test]
fn a_barrier_makes_shared_memory_common() {
    let body = RELAY.replace("BARRIER", "bar.sync 0;") + STORE;
    let words = Kernel {
        blocks: 3,
        ..relay(&body)
    }
    .of(&[0; 64]);
    let expected: Vec<u32> = (0..64).map(|thread| thread ^ 32).collect();
    assert_eq!(words, expected);
}

#[test]
fn threads_that_do_not_wait_for_others_are_found() {
    let body = RELAY.replace("BARRIER", "");
    // The first warp reads before anything is there, whatever the order of warps.
    relay(&body).fails(1, "not written");
    let twice = RELAY.replace("BARRIER", "bar.sync 0;") + "st.shared.b32 [%r8], %r1;";
    relay(&twice).fails(1, "which another warp");
}

#[test]
fn a_barrier_that_a_part_reaches_is_a_fault() {
    let body = "setp.gt.u32 %p1, %r1, 39;\n@%p1 ret;\nbar.sync 0;";
    relay(body).fails(1, "a barrier that 40 of 64 threads reach");
    let body = "setp.gt.u32 %p1, %r1, 39;\n@%p1 bra $L_other;\nbar.sync 0;\nret;\n\
                $L_other:\nbar.sync 0;";
    relay(body).fails(1, "threads of a warp wait at barriers of lines");
}

#[test]
fn an_access_outside_or_misaligned_is_a_fault() {
    Kernel::new("ld.global.b32 %r5, [%rd1+8];").fails(2, "lie in no allocation");
    Kernel::new("st.global.v2.b32 [%rd1+4], {%r1, %r1};").fails(8, "misaligned");
    let kernel = Kernel {
        head: WORDS,
        shared: 64,
        ..Kernel::new("st.shared.b32 [words+64], %r1;")
    };
    kernel.fails(1, "of Shared memory of 64 bytes");
    let error = Kernel::new("ld.global.b32 %r5, [%rd1+8];")
        .run(&mut [0, 0])
        .unwrap_err();
    assert!(error.contains("kernel: block [0, 0, 0], line "), "{error}");
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let error = |body: &str| Kernel::new(body).run(&mut [0]).unwrap_err();
    let said = error("frobnicate.b32 %r5, %r2;");
    assert!(
        said.contains("`frobnicate.b32 %r5, %r2`: an unknown opcode"),
        "{said}"
    );
    assert!(error("add.odd.f32 %r5, %r2, %r3;").contains("`.odd` is not known of `add`"));
    assert!(error("bar.sync 1, 64;").contains("a barrier of a part of a block"));
}

#[test]
fn functions_are_called_with_arguments_and_return() {
    let head = ".func (.param .b32 twice_retval0) twice(\n.param .b32 twice_param_0\n)\n{\n\
        .reg .b32 %r<3>;\nld.param.b32 %r1, [twice_param_0];\nadd.s32 %r2, %r1, %r1;\n\
        st.param.b32 [twice_retval0], %r2;\nret;\n}";
    let body = format!(
        "setp.lt.u32 %p1, %r1, 7;\nmov.b32 %r5, 1000;\n@%p1 bra $L_end;\n{{ // callseq 0, 0\n\
         .param .b32 param0;\n.param .b32 retval0;\nst.param.b32 [param0], %r1;\n\
         call.uni (retval0), twice, (param0);\nld.param.b32 %r5, [retval0];\n}}\n$L_end:\n{STORE}"
    );
    let words = Kernel {
        head,
        ..Kernel::new(&body)
    }
    .of(&[0; 32]);
    let expected: Vec<u32> = (0..32).map(|k| if k < 7 { 1000 } else { 2 * k }).collect();
    assert_eq!(words, expected);
}

#[test]
fn atomics_of_all_blocks_add_up() {
    let body = "atom.global.add.u32 %r5, [%rd1], 1;\nred.global.add.f32 [%rd1+4], 0f3F800000;\n\
                atom.global.max.s32 %r5, [%rd1+8], %r1;";
    let words = Kernel {
        blocks: 50,
        ..Kernel::new(body)
    }
    .of(&[0, 0, u32::MAX]);
    assert_eq!(words, [1600, 1600f32.to_bits(), 31]);
}

#[test]
fn memory_of_a_thread_and_of_the_module_is_there() {
    let head = ".global .align 4 .b32 table[4] = {5, 6, 7, 8};";
    let body = format!(
        ".local .align 8 .b8 depot[16];\nmov.b64 %rd4, depot;\ncvta.local.u64 %rd5, %rd4;\n\
         st.local.b32 [%rd4+4], %r1;\nld.b32 %r6, [%rd5+4];\nand.b32 %r7, %r1, 3;\n\
         mul.wide.u32 %rd6, %r7, 4;\nmov.b64 %rd7, table;\nadd.s64 %rd8, %rd7, %rd6;\n\
         ld.global.b32 %r8, [%rd8];\nmad.lo.s32 %r5, %r6, 10, %r8;\n{STORE}"
    );
    let words = Kernel {
        head,
        ..Kernel::new(&body)
    }
    .of(&[0; 32]);
    let expected: Vec<u32> = (0..32).map(|k| 10 * k + 5 + k % 4).collect();
    assert_eq!(words, expected);
}
