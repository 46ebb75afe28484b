//! Published weights of a BERT, real ones: sentence embeddings against transformers. The weights
//! are 83 MB in a package of PyPI, see `.ci/minilm`.

use std::path::PathBuf;

use burn::tensor::Device;
use burn_contrastive::similarity::l2_normalize;
use burn_contrastive_examples::data::{CaptionBatch, CaptionTokenizer};
use burn_contrastive_examples::models::{BertConfig, masked_mean};
use burn_contrastive_examples::published::Published;
use burn_contrastive_examples::training::weights::Weights;
use serde_json::Value;

const LAYERS: usize = 6;

#[test]
#[ignore = "needs all-MiniLM-L6-v2 in the folder that MINILM names: .ci/run weights"]
fn sentence_embeddings_of_minilm_are_those_of_transformers() {
    let folder = PathBuf::from(std::env::var("MINILM").expect("MINILM names a folder"));
    let expected = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/models/minilm.json"
    );
    let expected: Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    let device = Device::flex();
    let config = BertConfig {
        vocabulary: 30_522,
        context: 512,
        width: 384,
        layers: LAYERS,
        fusion_layers: 0,
        heads: 12,
        intermediate: 1_536,
        dropout: 0.0,
        initializer_range: 0.02,
    };
    let published = Published::open(&folder.join("model.safetensors")).unwrap();
    let weights = Weights::published(published, "", LAYERS);
    let nothing: [&str; 0] = [];
    let bert = weights
        .load_into(config.init(&device), &nothing, &nothing)
        .unwrap();
    let both = ["tokenizer.json", "vocab.txt"];
    let [tokenizer, of_pieces] =
        both.map(|file| CaptionTokenizer::load(folder.join(file), 128).unwrap());

    let rows = expected["sentences"].as_array().unwrap();
    assert_eq!(rows.len(), 8);
    for row in rows {
        let sentence = row["sentence"].as_str().unwrap().to_string();
        let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
        for tokenizer in [&tokenizer, &of_pieces] {
            assert_eq!(tokenizer.encode(&sentence).unwrap(), ids, "{sentence:?}");
        }
        // Batches have padding, which must not show.
        let texts = [sentence.clone(), "word ".repeat(100)];
        let CaptionBatch { tokens, padding } =
            CaptionBatch::read(&texts, &tokenizer, &device).unwrap();
        let states = bert.read(tokens, padding.clone());
        let embedding = l2_normalize(masked_mean(states, padding)).narrow(0, 0, 1);
        let embedding: Vec<f32> = embedding.into_data().iter::<f32>().collect();
        let expected: Vec<f32> = serde_json::from_value(row["embedding"].clone()).unwrap();
        for (found, expected) in embedding.iter().zip(&expected) {
            // Of numbers up to about 0.15.
            assert!(
                (found - expected).abs() < 1e-6,
                "{sentence:?}: {found} {expected}"
            );
        }
    }
}
