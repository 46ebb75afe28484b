//! Matrix units and the system: threads, signals, and a kernel that refuses them.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::pairwise::cpu::matrix_units::{BLOCK, Multiplied, Product, SIDE, Units};

/// A product of many steps.
fn product(units: Units) -> Vec<f32> {
    let steps = 512;
    let word = |k: usize| (0x3f80 + (k % 100) as u32) << 16 | (0x3f00 + (k % 77) as u32);
    let strip: Vec<u32> = (0..steps * BLOCK).map(word).collect();
    let mut sums = vec![0f32; SIDE * SIDE];
    // SAFETY: there are 32 rows of 32 elements.
    unsafe {
        units.ready().multiply(&Product {
            multiplied: &Multiplied::new(1, 1, false),
            steps,
            left: [&strip, &strip],
            right: [&strip, &strip],
            dst: sums.as_mut_ptr(),
            stride: SIDE,
            accumulate: false,
            rows: SIDE,
        });
    }
    sums
}

#[test]
fn threads_made_later_multiply_too() {
    let Some(units) = Units::of_processor() else {
        eprintln!("this processor has no matrix units: nothing to check");
        return;
    };
    let here = product(units);
    let there = thread::spawn(move || thread::spawn(move || product(units)).join().unwrap());
    assert!(there.join().unwrap() == here);
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Signals come in the middle of products, on this thread; their handlers find registers of their
/// own.
#[test]
fn signals_in_the_middle_of_a_product_change_nothing() {
    let Some(units) = Units::of_processor() else {
        eprintln!("this processor has no matrix units: nothing to check");
        return;
    };
    let quiet = product(units);
    // SAFETY: the handler does nothing that a handler may not do.
    let this = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &action, ptr::null_mut()), 0);
        libc::pthread_self()
    };
    let is_done = AtomicUsize::new(0);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            while is_done.load(Ordering::Relaxed) == 0 {
                // SAFETY: the thread lives for as long as this scope.
                unsafe { libc::pthread_kill(this, libc::SIGUSR2) };
                thread::yield_now();
            }
        });
        let mut is_same = true;
        while SIGNALS.load(Ordering::Relaxed) < 200 {
            is_same &= product(units) == quiet;
        }
        is_done.store(1, Ordering::Relaxed);
        sender.join().unwrap();
        assert!(is_same);
    });
}

const REFUSED: &str = "BURN_CONTRASTIVE_TEST_REFUSED";

/// In a process whose kernel grants no tiles.
#[test]
fn where_the_kernel_refuses_tiles_others_multiply() {
    if std::env::var_os(REFUSED).is_none() {
        let name = "where_the_kernel_refuses_tiles_others_multiply";
        let child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--nocapture"])
            .env(REFUSED, "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        return;
    }
    refuse_arch_prctl();
    // SAFETY: it is refused.
    assert_eq!(
        unsafe { libc::syscall(libc::SYS_arch_prctl, 0x1023, 18) },
        -1
    );
    let units = Units::of_processor();
    assert!(units != Some(Units::Amx));
    if let Some(units) = units {
        assert!(product(units).iter().all(|x| x.is_finite()));
    }
}

/// Lets every later `arch_prctl` of this thread, and of those that it starts, fail.
fn refuse_arch_prctl() {
    let statement = |code: u32, jumps: [u8; 2], k: u32| libc::sock_filter {
        code: code as u16,
        jt: jumps[0],
        jf: jumps[1],
        k,
    };
    let fail = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut filter = [
        // The number of the call is the first field of what a filter reads.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, [0, 0], 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            [0, 1],
            libc::SYS_arch_prctl as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, [0, 0], fail),
        statement(libc::BPF_RET | libc::BPF_K, [0, 0], libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program lives until the calls return.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER as libc::c_ulong;
        assert_eq!(
            libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program),
            0
        );
    }
}
