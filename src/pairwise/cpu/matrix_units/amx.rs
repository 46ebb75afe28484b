//! Intel's Advanced Matrix Extensions: eight tiles of 16 rows of 64 bytes, and an instruction that
//! multiplies two of them.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::OnceLock;

use super::Product;

/// Whether the processor has tiles and products of bf16, and Linux lets this process use them.
///
/// It is asked once, for all threads: those that exist and those to come.
pub(super) fn is_granted() -> bool {
    static IS_GRANTED: OnceLock<bool> = OnceLock::new();
    *IS_GRANTED.get_or_init(|| has_instructions() && ask())
}

fn has_instructions() -> bool {
    const TILES: u32 = 0x1d;
    let bit = |register: u32, bit: u32| register >> bit & 1 == 1;
    if __cpuid(0).eax < TILES {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    let saves_state = bit(__cpuid(1).ecx, 27);
    if !(bit(features, 22) && bit(features, 24) && saves_state) {
        return false;
    }
    let state: u32;
    // SAFETY: the system saves extended states, so that the instruction exists.
    unsafe {
        asm!(
            "xgetbv", in("ecx") 0, out("eax") state, out("edx") _,
            options(nomem, nostack, preserves_flags)
        );
    }
    // The first palette: the number and the size of tiles.
    let palette = __cpuid_count(TILES, 1);
    let [count, row] = [palette.ebx >> 16, palette.ebx & 0xffff];
    bit(state, 17) && bit(state, 18) && count >= 8 && row == 64 && palette.ecx & 0xffff == 16
}

/// Linux grants the state of tiles on request.
fn ask() -> bool {
    const GET_PERMISSIONS: libc::c_int = 0x1022;
    const REQUEST_PERMISSION: libc::c_int = 0x1023;
    const TILE_DATA: libc::c_ulong = 18;
    let mut permissions: u64 = 0;
    // SAFETY: neither call touches memory but `permissions`.
    let is_granted = unsafe {
        libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0
            && libc::syscall(libc::SYS_arch_prctl, GET_PERMISSIONS, &raw mut permissions) == 0
    };
    is_granted && permissions >> TILE_DATA & 1 == 1
}

/// The shapes of the tiles, as the processor reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_row: [u16; 16],
    rows: [u8; 16],
}

/// Gives this thread eight tiles of full size.
pub(super) fn configure() {
    let mut shapes = Shapes {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        bytes_of_row: [0; 16],
        rows: [0; 16],
    };
    shapes.bytes_of_row[..8].fill(64);
    shapes.rows[..8].fill(16);
    // SAFETY: the processor has tiles of this size; nobody but this module uses them.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &shapes, options(readonly, nostack, preserves_flags));
    }
}

/// Takes the tiles from this thread: switching to another saves less then.
pub(super) fn release() {
    // SAFETY: the processor has tiles.
    unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
}

/// Sums are in the tiles 0 to 3. Step by step, and product by product, two tiles of each factor are
/// loaded and multiplied.
macro_rules! multiply {
    ($begin:literal, $product:expr) => {{
        let product: &Product = $product;
        let [left, right] = [product.left, product.right];
        asm!(
            "mov {x}, {stride}",
            "shl {x}, 4",
            "add {x}, {dst}",
            $begin,
            "2:",
            "lea {product}, [{table} + 16]",
            "3:",
            "mov {x}, [{product}]",
            "mov {y}, [{product} + 8]",
            "add {x}, {left}",
            "add {y}, {right}",
            "tileloadd tmm4, [{x} + {row}]",
            "tileloadd tmm6, [{y} + {row}]",
            "add {x}, {next_left}",
            "add {y}, {next_right}",
            "tileloadd tmm5, [{x} + {row}]",
            "tileloadd tmm7, [{y} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {product}, 16",
            "cmp qword ptr [{product}], -1",
            "jne 3b",
            "add {left}, [{table}]",
            "add {right}, [{table} + 8]",
            "dec {steps}",
            "jnz 2b",
            "mov {x}, {stride}",
            "shl {x}, 4",
            "add {x}, {dst}",
            "tilestored [{dst} + {stride}], tmm0",
            "tilestored [{dst} + {stride} + 64], tmm1",
            "tilestored [{x} + {stride}], tmm2",
            "tilestored [{x} + {stride} + 64], tmm3",
            table = in(reg) product.multiplied.table.as_ptr(),
            steps = inout(reg) product.steps => _,
            left = inout(reg) left[0].as_ptr() => _,
            right = inout(reg) right[0].as_ptr() => _,
            next_left = in(reg) left[1].as_ptr().byte_offset_from(left[0].as_ptr()),
            next_right = in(reg) right[1].as_ptr().byte_offset_from(right[0].as_ptr()),
            row = in(reg) 64usize,
            dst = in(reg) product.dst,
            stride = in(reg) product.stride * size_of::<f32>(),
            product = out(reg) _,
            x = out(reg) _,
            y = out(reg) _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    }};
}

/// # Safety
///
/// The strips have all steps; `dst` is the caller's, 32 rows of 32 elements; this thread is
/// [configured](configure).
pub(super) unsafe fn multiply(product: &Product) {
    // SAFETY: the caller's promise.
    unsafe {
        if product.accumulate {
            multiply!(
                "tileloadd tmm0, [{dst} + {stride}]
                 tileloadd tmm1, [{dst} + {stride} + 64]
                 tileloadd tmm2, [{x} + {stride}]
                 tileloadd tmm3, [{x} + {stride} + 64]",
                product
            );
        } else {
            multiply!(
                "tilezero tmm0
                 tilezero tmm1
                 tilezero tmm2
                 tilezero tmm3",
                product
            );
        }
    }
}
