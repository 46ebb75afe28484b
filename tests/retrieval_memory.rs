//! Retrieval never holds the matrix of similarities: peak live bytes, counted by the allocator of
//! this test binary.

mod counting;

use burn::tensor::{Device, Tensor, TensorData};
use burn_contrastive::retrieval::{
    Shortlist, cross_modal, five_fold, label_histogram, precision_at_k, similarity_histogram,
};
use counting::peak_of;

const WIDTH: usize = 8;
const IMAGES: usize = 2_500;
const TEXTS: usize = 5_000;
const MIB: usize = 1 << 20;

fn embeddings(count: usize) -> Tensor<2> {
    let values = (0..count * WIDTH)
        .map(|i| (i as f32 * 0.37).sin())
        .collect();
    Tensor::from_data(TensorData::new(values, [count, WIDTH]), &Device::default())
}

// One test, so that nothing else allocates meanwhile.
#[test]
fn memory_is_bounded_by_a_block_and_the_embeddings() {
    // Each thread has a tile.
    // SAFETY: the only test of this binary, before anything else runs.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("RAYON_NUM_THREADS", "1");
    }
    let owners: Vec<usize> = (0..TEXTS).map(|text| (text * 7) % IMAGES).collect();
    let labels: Vec<usize> = (0..IMAGES).map(|image| image % 8).collect();
    let text_labels: Vec<usize> = owners.iter().map(|&image| image % 8).collect();
    let (images, texts) = (embeddings(IMAGES), embeddings(TEXTS));
    // The embeddings a few times over, and some values for each row.
    let rows = 4 * (4 * WIDTH + 32) * (IMAGES + TEXTS);
    let matrix = 4 * IMAGES * TEXTS;
    let check = |name: &str, blocks: usize, run: &dyn Fn()| {
        let bound = blocks + rows;
        assert!(
            2 * bound < matrix,
            "the bound must tell: {bound} of {matrix}"
        );
        let [peak, _] = peak_of(run);
        println!("{name}: {peak} of {bound} bytes");
        assert!(
            peak <= bound,
            "{name}: peak {peak} bytes, at most {bound} allowed"
        );
    };
    check("cross_modal", 2 * MIB, &|| {
        cross_modal(images.clone(), texts.clone(), &owners);
    });
    check("five_fold", 2 * MIB, &|| {
        five_fold(images.clone(), texts.clone(), &owners);
    });
    check("precision_at_k", 20 * MIB, &|| {
        let (images, texts) = (images.clone(), texts.clone());
        precision_at_k(images, &labels, texts, &text_labels, &[5, 50]);
    });
    check("shortlist", 20 * MIB, &|| {
        Shortlist::new(images.clone(), texts.clone(), 16);
    });
    check("label_histogram", 20 * MIB, &|| {
        let (images, texts) = (images.clone(), texts.clone());
        label_histogram(images, &labels, texts, &text_labels, 100);
    });
    check("similarity_histogram", 20 * MIB, &|| {
        similarity_histogram(images.clone(), texts.clone(), &owners, 100);
    });
}
