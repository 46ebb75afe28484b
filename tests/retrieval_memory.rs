//! Retrieval never holds the matrix of similarities: peak live bytes, counted by the allocator of this test binary.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use burn::tensor::{Device, Tensor, TensorData};
use burn_contrastive::retrieval::Blocks;

/// The system's allocator, counting.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to `System` unchanged; the counters never touch the memory.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's layout, as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's pointer and layout, as they came.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WIDTH: usize = 8;
const IMAGES: usize = 1_000;
const TEXTS: usize = 5_000;

fn embeddings(count: usize) -> Tensor<2> {
    let values = (0..count * WIDTH)
        .map(|i| (i as f32 * 0.37).sin())
        .collect();
    Tensor::from_data(TensorData::new(values, [count, WIDTH]), &Device::default())
}

/// Peak bytes live above those at the start.
fn peak_of(run: impl FnOnce()) -> usize {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    run();
    PEAK.load(Relaxed) - before
}

// One test, so that nothing else allocates meanwhile.
#[test]
fn memory_is_bounded_by_the_block_and_the_embeddings() {
    let owners: Vec<usize> = (0..TEXTS).map(|text| (text * 7) % IMAGES).collect();
    let labels: Vec<usize> = (0..IMAGES).map(|image| image % 8).collect();
    let text_labels: Vec<usize> = owners.iter().map(|&image| image % 8).collect();
    let (images, texts) = (embeddings(IMAGES), embeddings(TEXTS));
    let matrix = 4 * IMAGES * TEXTS;

    // Normalising holds a few copies of one side, and each row has a few numbers of its own: a rank, an index, a flag.
    let rows = 4 * (4 * WIDTH + 32) * (IMAGES + TEXTS);
    for (block_rows, block_columns) in [(64, 256), (250, 1_000)] {
        let blocks = Blocks::new(block_rows, block_columns);
        let bound = Blocks::BYTES_PER_SIMILARITY * block_rows * block_columns + rows;
        assert!(
            bound < matrix / 2,
            "the bound must tell: {bound} against {matrix}"
        );
        let cross_modal = peak_of(|| {
            blocks.cross_modal(images.clone(), texts.clone(), &owners);
        });
        let precision = peak_of(|| {
            blocks.precision_at_k(
                images.clone(),
                &labels,
                texts.clone(),
                &text_labels,
                &[5, 10, 50],
            );
        });
        let histogram = peak_of(|| {
            blocks.similarity_histogram(images.clone(), texts.clone(), &owners, 100);
        });
        let five_fold = peak_of(|| {
            blocks.five_fold(images.clone(), texts.clone(), &owners);
        });
        for (name, peak) in [
            ("cross_modal", cross_modal),
            ("precision_at_k", precision),
            ("similarity_histogram", histogram),
            ("five_fold", five_fold),
        ] {
            println!("{name} in {blocks:?}: {peak} of {bound} bytes");
            assert!(
                peak <= bound,
                "{name} in {blocks:?}: peak {peak} bytes, need at most {bound}"
            );
        }
    }
}
