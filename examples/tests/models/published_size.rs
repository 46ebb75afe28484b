//! A step that fine-tunes a random CLIP of a published size, against PyTorch's in f64.

use std::path::PathBuf;

use burn::tensor::Device;
use burn_contrastive::objective::{Features, ObjectiveConfig};
use burn_contrastive_examples::published::Published;
use burn_contrastive_examples::training::weights::Weights;

use crate::reference::Reference;

#[test]
#[ignore = "needs 0.7 GB of weights, which tests/fixtures/models/published_size.py makes"]
fn published_size_has_the_embeddings_and_gradients_of_open_clip() {
    let folder = std::env::var_os("CLIP_FOLDER").map(PathBuf::from);
    let folder = folder.expect("CLIP_FOLDER is the folder that published_size.py wrote");
    let reference = Reference::read_file(&folder.join("reference.safetensors"));
    let device = Device::flex().autodiff();
    let published = Published::open(&folder.join("weights.safetensors")).unwrap();
    let (layout, config) = (published.layout, published.clip().unwrap());
    let objective = ObjectiveConfig::named("info-nce").unwrap().init(&device);
    let nothing: [&str; 0] = [];
    let weights = Weights::published(published, "", 0);
    let model = weights.load_into(config.init(objective, &device), &nothing, &nothing);
    let model = model.unwrap();

    let images = model.embed_image(reference.input("images", &device));
    let texts = model.embed_text(
        reference.integers("tokens", &device),
        reference.padding("padding", &device),
    );
    let features = Features::new(images.clone(), texts.clone());
    let loss = model.objective.forward(&features);
    let errors = [
        ("image".to_string(), reference.error("output.image", images)),
        ("text".to_string(), reference.error("output.text", texts)),
        (
            "loss".to_string(),
            reference.error("output.loss", loss.clone()),
        ),
    ];
    for (name, error) in &errors {
        println!("{error:.1e} {name}");
    }
    assert!(errors.iter().all(|(_, error)| *error <= 1e-5));

    let key = |path: &str| layout.key(path, 0);
    let errors = reference.gradient_errors(&model, loss.backward(), key);
    let compared = errors.iter().map(|(path, error)| {
        let rounding = reference.number(&format!("rounding.{}", key(path).name));
        println!("{error:.1e} {path}, by PyTorch in f32 {rounding:.1e}");
        *error <= 1e-4 || *error <= 2.0 * rounding
    });
    let compared: Vec<_> = compared.collect();
    assert!(compared.len() > 15 && compared.into_iter().all(|is_close| is_close));
}
