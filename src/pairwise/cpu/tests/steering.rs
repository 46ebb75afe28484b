//! Tiles, blocks, bands, kept similarities and threads change results by rounding at most.

use proptest::prelude::*;
use rayon::prelude::*;

use super::*;

/// The settings of a pass.
#[derive(Clone, Debug)]
struct Steering {
    n: usize,
    m: usize,
    tile: usize,
    block: [usize; 2],
    band: usize,
    /// How much may be kept, in hundredths of the matrix.
    keep: usize,
    threads: usize,
    seed: u64,
}

fn steering() -> impl Strategy<Value = Steering> {
    let size = || prop::sample::select(vec![1usize, 2, 15, 16, 17, 63, 64, 65, 127, 129]);
    let band = prop::sample::select(vec![1usize, 16, 50, 64, 512]);
    let tile = prop::sample::select(vec![7usize, 16, 32, 64]);
    let blocks = (1usize..4, 1usize..5);
    (
        size(),
        size(),
        tile,
        blocks,
        band,
        0usize..130,
        1usize..5,
        any::<u64>(),
    )
        .prop_map(|(n, m, tile, blocks, band, keep, threads, seed)| Steering {
            n,
            m,
            tile,
            block: blocks.into(),
            band,
            keep,
            threads,
            seed,
        })
}

fn with_threads<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.expect("a pool of threads").install(f)
}

fn check(symmetric: bool, steering: &Steering) -> Result<(), TestCaseError> {
    let mut steering = steering.clone();
    if symmetric {
        // Blocks of one set with itself are square.
        steering.m = steering.n;
        steering.block[1] = steering.block[0];
    }
    let Steering {
        n,
        m,
        tile,
        block,
        band,
        keep,
        threads,
        seed,
    } = steering;
    let problem = Problem::of(symmetric, n, m, seed);
    // Products in f32 read two strips at a time.
    let strips = tiling(tile.next_multiple_of(32), block, band);
    let (tiling, keep) = (tiling(tile, block, band), keep * n * m / 100);
    for form in forms(symmetric) {
        let expected = evaluate::<f64>(&form, &problem, Some(&whole()), 0);
        let (steered, own, single) = with_threads(threads, || {
            (
                evaluate::<f64>(&form, &problem, Some(&tiling), keep),
                evaluate::<f64>(&form, &problem, None, keep),
                evaluate::<f32>(&form, &problem, Some(&strips), keep),
            )
        });
        for (name, found, tolerance) in [
            ("steered", distance(&steered, &expected), 1e-12),
            ("its own tiling", distance(&own, &expected), 1e-12),
        ] {
            prop_assert!(found <= tolerance, "{name}: {found:e} in {form:?}");
        }
        // In f32 a kink or a maximum may fall on another side or index.
        let reads_kinks = form
            .reductions
            .iter()
            .any(|r| r.kind == Kind::Max || format!("{r:?}").contains("Step"));
        let found = distance(&single, &expected);
        prop_assert!(reads_kinks || found <= 1e-4, "f32: {found:e} in {form:?}");
    }
    Ok(())
}

fn property() -> ProptestConfig {
    ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn tiles_blocks_bands_and_threads_change_results_by_rounding_only() {
    proptest!(property(), |(steering in steering())| check(false, &steering)?);
}

#[test]
fn tiles_blocks_bands_and_threads_change_results_by_rounding_only_within_one_set() {
    proptest!(property(), |(steering in steering())| check(true, &steering)?);
}

#[test]
fn the_same_threads_and_input_give_the_same_bits() {
    let bits =
        |found: [Vec<f32>; 4]| found.map(|v| v.into_iter().map(f32::to_bits).collect::<Vec<_>>());
    for symmetric in [false, true] {
        let problem = Problem::of(symmetric, 130, 70, 1);
        for form in forms(symmetric) {
            let tiling = tiling(32, [1, 1], 16);
            for tiling in [None, Some(&tiling)] {
                with_threads(4, || {
                    let run = || bits(evaluate::<f32>(&form, &problem, tiling, 4000));
                    let first = run();
                    assert!(first == run(), "two runs in succession differ: {form:?}");
                    let again: Vec<_> = (0..6).into_par_iter().map(|_| run()).collect();
                    assert!(
                        again.iter().all(|other| first == *other),
                        "concurrent runs differ: {form:?}"
                    );
                });
            }
        }
    }
}

/// Of a symmetric matrix, the blocks on and above the diagonal stand for those below. Blocks that
/// are kept lie one after the other within the space for them.
#[test]
fn blocks_cover_every_pair_once() {
    for (n, m) in [(1, 1), (64, 64), (65, 63), (200, 127)] {
        for symmetric in [false, true] {
            let m = if symmetric { n } else { m };
            for keep in [0, 1, 4096, 16_000, n * m, 20 * n * m] {
                for block in [[1, 1], [2, 2], [4, 4]] {
                    let mut seen = vec![0; n * m];
                    let (mut kept, mut all) = (0, 0);
                    let form = keeping(&forms(symmetric)[0], keep * size_of::<f32>());
                    let pass = Pass {
                        teachers: Vec::new(),
                        ..form.forward(true)
                    };
                    for block in blocks::<f32>(&tiling(16, block, 4), &pass, n, m) {
                        for i in block.rows.start..block.rows.end() {
                            for j in block.columns.start..block.columns.end() {
                                seen[i * m + j] += 1;
                                if block.is_mirrored {
                                    seen[j * m + i] += 1;
                                }
                            }
                        }
                        if let Some(at) = block.kept_at {
                            assert_eq!(at, kept);
                            kept += block.len();
                        }
                        all += block.len();
                    }
                    assert!(seen.iter().all(|&times| times == 1), "{n} × {m}, {block:?}");
                    assert!(kept <= keep);
                    assert!(keep < all || kept == all);
                }
            }
        }
    }
}
