//! Late interaction holds neither the matrix of all tokens nor that of all pairs: peak live bytes
//! and the largest allocation, counted by the allocator of this test binary.
#![cfg(feature = "flex")]

mod counting;

use burn::tensor::{Bool, Device, Tensor, TensorData};
use burn_contrastive::objective::{ContrastiveConfig, Criterion};
use burn_contrastive::similarity::{SimilarityConfig, Tokens};
use counting::peak_of;

const N: usize = 64;
const IMAGE_TOKENS: usize = 48;
const TEXT_TOKENS: usize = 24;
const D: usize = 16;
const BUDGET: usize = 1 << 20;
/// Bytes of the products of all tokens.
const ALL: usize = 4 * N * IMAGE_TOKENS * N * TEXT_TOKENS;

fn embeddings(count: usize, device: &Device) -> Tensor<3> {
    let values = (0..N * count * D).map(|i| (i as f32 * 0.37).sin());
    let data = TensorData::new(values.collect::<Vec<_>>(), [N, count, D]);
    Tensor::from_data(data, device).require_grad()
}

// One test, so that nothing else allocates meanwhile.
#[test]
fn memory_is_bounded_by_the_budget_and_the_tokens() {
    // SAFETY: the only test of this binary, before anything else runs.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("RAYON_NUM_THREADS", "1");
    }
    let device = Device::flex().autodiff();
    let (image, text) = (
        embeddings(IMAGE_TOKENS, &device),
        embeddings(TEXT_TOKENS, &device),
    );
    let words = (0..N * TEXT_TOKENS).map(|i| i % TEXT_TOKENS <= i / TEXT_TOKENS);
    let words = TensorData::new(words.collect::<Vec<_>>(), [N, TEXT_TOKENS]);
    let words = Tensor::<2, Bool>::from_data(words, &device);
    let run = || {
        let similarity = SimilarityConfig::new().with_memory_budget(BUDGET);
        let criterion = Criterion::new().with_similarity(similarity);
        let objective = ContrastiveConfig::new().with_criterion(criterion);
        let text_tokens = Tokens::new(text.clone()).with_mask(words.clone());
        let loss = objective
            .init(&device)
            .forward_late_interaction(Tokens::new(image.clone()), text_tokens);
        let gradients = loss.backward();
        assert!(image.grad(&gradients).is_some() && text.grad(&gradients).is_some());
    };
    // What the backend allocates once and keeps, such as workspaces of products, does not count.
    run();
    let [peak, largest] = peak_of(run);
    // Embeddings, gradients and copies on the way to the engine, for each direction.
    let tokens = 8 * 4 * N * (IMAGE_TOKENS + TEXT_TOKENS) * D;
    let bound = BUDGET + tokens;
    println!("peak {peak} of {bound}, largest {largest}, all tokens {ALL}");
    assert!(2 * bound < ALL, "the bound is too loose: {bound} of {ALL}");
    assert!(
        peak <= bound && largest <= BUDGET,
        "peak {peak} bytes, allowed {bound}; largest allocation {largest}, allowed {BUDGET}"
    );
}
