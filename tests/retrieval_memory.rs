//! Retrieval never holds the similarity matrix: peak live bytes, counted by the allocator of this
//! test binary.

mod counting;

use burn::tensor::{Device, Tensor, TensorData};
use burn_contrastive::retrieval::Blocks;
use counting::peak_of;

const WIDTH: usize = 8;
const IMAGES: usize = 500;
const TEXTS: usize = 2_500;

fn embeddings(count: usize) -> Tensor<2> {
    let values = (0..count * WIDTH)
        .map(|i| (i as f32 * 0.37).sin())
        .collect();
    Tensor::from_data(TensorData::new(values, [count, WIDTH]), &Device::default())
}

// One test, so that nothing else allocates meanwhile.
#[test]
fn memory_is_bounded_by_the_block_and_the_embeddings() {
    let owners: Vec<usize> = (0..TEXTS).map(|text| (text * 7) % IMAGES).collect();
    let labels: Vec<usize> = (0..IMAGES).map(|image| image % 8).collect();
    let text_labels: Vec<usize> = owners.iter().map(|&image| image % 8).collect();
    let (images, texts) = (embeddings(IMAGES), embeddings(TEXTS));
    for (block_rows, block_columns) in [(64, 256), (100, 500)] {
        let blocks = Blocks::new(block_rows, block_columns);
        // What the backend allocates once and keeps, such as its threads, does not count: one block
        // goes first.
        blocks.precision_at_k(
            images.clone().narrow(0, 0, block_rows),
            &labels[..block_rows],
            texts.clone().narrow(0, 0, block_columns),
            &text_labels[..block_columns],
            &[50],
        );
        // One normalized copy of the embeddings, and a few values for each row: a rank, an index,
        // a flag.
        let rows = 4 * (WIDTH + 12) * (IMAGES + TEXTS);
        let bound = Blocks::BYTES_PER_SIMILARITY * block_rows * block_columns + rows;
        let matrix = 4 * IMAGES * TEXTS;
        assert!(
            4 * bound < matrix,
            "the bound is too loose: {bound} of {matrix}"
        );
        let check = |name: &str, [peak, _]: [usize; 2]| {
            println!("{name} in {block_rows} × {block_columns}: {peak} of {bound} bytes");
            assert!(
                peak <= bound,
                "{name} in {blocks:?}: peak {peak} bytes, allowed {bound}"
            );
        };
        check(
            "cross_modal",
            peak_of(|| {
                blocks.cross_modal(images.clone(), texts.clone(), &owners);
            }),
        );
        check(
            "precision_at_k",
            peak_of(|| {
                blocks.precision_at_k(
                    images.clone(),
                    &labels,
                    texts.clone(),
                    &text_labels,
                    &[5, 10, 50],
                );
            }),
        );
        check(
            "similarity_histogram",
            peak_of(|| {
                blocks.similarity_histogram(images.clone(), texts.clone(), &owners, 100);
            }),
        );
        check(
            "five_fold",
            peak_of(|| {
                blocks.five_fold(images.clone(), texts.clone(), &owners);
            }),
        );
    }
}
