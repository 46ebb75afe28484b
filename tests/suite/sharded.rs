//! A sharded step is the step of the whole batch.

use burn::module::{Module, Param};
use burn_contrastive::objective::{Features, ObjectiveConfig};
use burn_contrastive::sharded::{Encoded, Sharded, Sharding};

use super::*;

on_every_backend! {
    shards_of_any_size_give_the_step_of_the_whole_batch,
    losses_of_shards_are_added_and_parameters_of_the_loss_have_gradients,
    images_and_texts_may_be_of_different_number,
    what_is_misused_is_refused,
}

const PAIRS: usize = 7;

/// Two towers of one layer.
#[derive(Module, Debug)]
struct Towers {
    image: Param<Tensor<2>>,
    text: Param<Tensor<2>>,
}

impl Towers {
    fn new(device: &Device, dtype: DType) -> Self {
        let weight = |seed| Param::from_tensor(on(device, &random(5, 4, seed), dtype));
        Self {
            image: weight(700),
            text: weight(701),
        }
    }

    fn params(&self) -> [&Param<Tensor<2>>; 2] {
        [&self.image, &self.text]
    }

    fn leaves(&self) -> Vec<Tensor<2>> {
        self.params().map(Param::val).to_vec()
    }

    fn embed(&self, [image, text]: [Tensor<2>; 2]) -> [Tensor<2>; 2] {
        [
            image.matmul(self.image.val()).tanh(),
            text.matmul(self.text.val()).tanh(),
        ]
    }
}

fn inputs(device: &Device, dtype: DType) -> [Tensor<2>; 2] {
    [702, 703].map(|seed| on(device, &random(PAIRS, 5, seed), dtype))
}

/// The rows of both, divided.
fn divided(whole: &[Tensor<2>; 2], sizes: &[usize]) -> Vec<[Tensor<2>; 2]> {
    let mut start = 0;
    let mut part = |&size: &usize| {
        start += size;
        whole
            .each_ref()
            .map(|x| x.clone().narrow(0, start - size, size))
    };
    sizes.iter().map(&mut part).collect()
}

/// The gradients by the parameters; zeros of what has none.
fn by_leaves(leaves: &[Tensor<2>], loss: Tensor<1>) -> Vec<Vec<f64>> {
    let gradients = loss.backward();
    let of = |leaf: &Tensor<2>| match leaf.grad(&gradients) {
        Some(gradient) => elements(gradient),
        None => vec![0.0; leaf.shape().num_elements()],
    };
    leaves.iter().map(of).collect()
}

fn by_params<'a>(
    step: &Sharded,
    params: impl IntoIterator<Item = &'a Param<Tensor<2>>>,
) -> Vec<Vec<f64>> {
    let of = |param: &Param<Tensor<2>>| match step.gradients.get::<2>(param.id) {
        Some(gradient) => elements(gradient),
        None => vec![0.0; param.val().shape().num_elements()],
    };
    params.into_iter().map(of).collect()
}

/// Everything that an objective may read besides image and text.
fn features(backend: &Backend, dtype: DType, [image, text]: [Tensor<2>; 2]) -> Features {
    let matrix = |rows, width, seed| Some(backend.tensor(&random(rows, width, seed), dtype));
    Features {
        teacher_image: matrix(PAIRS, 3, 704),
        teacher_text: matrix(PAIRS, 3, 705),
        momentum_image: matrix(PAIRS, 4, 706),
        momentum_text: matrix(PAIRS, 4, 707),
        queue_image: matrix(5, 4, 708),
        queue_text: matrix(5, 4, 709),
        queue_teacher_image: matrix(5, 3, 710),
        queue_teacher_text: matrix(5, 3, 711),
        ..Features::new(image, text)
    }
}

fn shards_of_any_size_give_the_step_of_the_whole_batch(backend: &Backend) {
    let device = backend.autodiff();
    // Barlow Twins is no sum over pairs.
    let objectives = [
        r#"{"objective": "info-nce"}"#,
        r#"{"objective": "siglip"}"#,
        r#"{"objective": "srcl", "alpha": 0.7, "queue": true}"#,
        r#"{"objective": "image-text-contrastive"}"#,
        r#"{"objective": "barlow-twins"}"#,
    ];
    let splits = [vec![PAIRS], vec![1; PAIRS], vec![3, 1, 2, 1], vec![4, 3]];
    let precisions = [(DType::F32, 2e-5), (DType::F64, 1e-10)];
    for (dtype, tolerance) in precisions {
        if dtype == DType::F64 && !backend.has_f64() {
            continue;
        }
        let whole = inputs(&device, dtype);
        for json in objectives {
            let config: ObjectiveConfig = serde_json::from_str(json).unwrap();
            let objective = config.init(&device);
            let towers = Towers::new(&device, dtype);
            let loss = objective.forward(&features(backend, dtype, towers.embed(whole.clone())));
            let expected = by_leaves(&towers.leaves(), loss.clone());
            let loss = elements(loss);

            for sizes in &splits {
                for sharding in [Sharding::recompute(), Sharding::keep(1), Sharding::keep(3)] {
                    println!("{json} {dtype:?} {sizes:?} {sharding:?}");
                    let step = sharding.backward(
                        &towers,
                        &divided(&whole, sizes),
                        |towers: &Towers, shard| Encoded::new(towers.embed(shard.clone())),
                        |embeddings| {
                            let embeddings = embeddings.try_into().unwrap();
                            objective.forward(&features(backend, dtype, embeddings))
                        },
                    );
                    let found = by_params(&step, towers.params());
                    assert_close(&elements(step.loss), &loss, tolerance);
                    for (found, expected) in found.iter().zip(&expected) {
                        assert_close(found, expected, tolerance);
                    }
                    let [image, _] = towers.embed(whole.clone());
                    let embeddings = elements(step.embeddings[0].clone());
                    assert_close(&embeddings, &elements(image), tolerance);
                }
            }
        }
    }
}

fn losses_of_shards_are_added_and_parameters_of_the_loss_have_gradients(backend: &Backend) {
    let device = backend.autodiff();
    let whole = inputs(&device, DType::F32);
    let factor = Param::from_tensor(on(&device, &random(1, 1, 712), DType::F32));
    let model = (Towers::new(&device, DType::F32), vec![factor]);
    let (towers, factor) = (&model.0, &model.1[0]);
    let of_batch = |image: Tensor<2>, text: Tensor<2>| {
        let products = image.matmul(text.transpose()).exp().sum_dim(1).log();
        (products.sum_dim(0) * factor.val()).reshape([1])
    };
    let of_shard = |image: &Tensor<2>| image.clone().powf_scalar(3.0).sum();

    let [image, text] = towers.embed(whole.clone());
    let loss = of_batch(image.clone(), text) + of_shard(&image);
    let leaves = [towers.leaves(), vec![factor.val()]].concat();
    let expected = by_leaves(&leaves, loss.clone());
    for sharding in [Sharding::recompute(), Sharding::keep(2)] {
        let step = sharding.backward(
            &model,
            &divided(&whole, &[2, 4, 1]),
            |(towers, _), shard| {
                let embeddings = towers.embed(shard.clone());
                let loss = of_shard(&embeddings[0]);
                Encoded::new(embeddings).with_loss(loss)
            },
            |embeddings| {
                let [image, text] = embeddings.try_into().unwrap();
                of_batch(image, text)
            },
        );
        let found = by_params(&step, [&towers.image, &towers.text, factor]);
        assert_close(&elements(step.loss), &elements(loss.clone()), 1e-5);
        for (found, expected) in found.iter().zip(&expected) {
            assert_close(found, expected, 1e-5);
        }
    }
}

/// Several captions an image: a shard has rows of its own in each of its embeddings. What the loss
/// does not read has no gradient.
fn images_and_texts_may_be_of_different_number(backend: &Backend) {
    let device = backend.autodiff();
    let towers = Towers::new(&device, DType::F32);
    let matrix = |rows, seed| on(&device, &random(rows, 5, seed), DType::F32);
    let shards =
        [(2, 5), (1, 3), (3, 3)].map(|(images, texts)| [matrix(images, 713), matrix(texts, 714)]);
    let embed = |towers: &Towers, shard: &[Tensor<2>; 2]| {
        let [image, text] = towers.embed(shard.clone());
        vec![image.clone(), text, image * 2.0]
    };
    let loss = |image: Tensor<2>, text: Tensor<2>| image.matmul(text.transpose()).exp().sum();
    let [image, text] = [0, 1].map(|k| {
        let parts = shards
            .iter()
            .map(|shard| embed(&towers, shard).swap_remove(k));
        Tensor::cat(parts.collect(), 0)
    });
    let expected = by_leaves(&towers.leaves(), loss(image, text));
    for sharding in [Sharding::recompute(), Sharding::keep(3)] {
        let step = sharding.backward(
            &towers,
            &shards,
            |towers: &Towers, shard| Encoded::new(embed(towers, shard)),
            |embeddings| loss(embeddings[0].clone(), embeddings[1].clone()),
        );
        let rows = step.embeddings.iter().map(|x| x.dims()[0]);
        assert_eq!(rows.collect::<Vec<_>>(), [6, 11, 6]);
        let found = by_params(&step, towers.params());
        for (found, expected) in found.iter().zip(&expected) {
            assert_close(found, expected, 1e-5);
        }
    }
}

fn what_is_misused_is_refused(backend: &Backend) {
    let run = |device: &Device, encode: &(dyn Fn(&usize, Tensor<2>) -> Encoded + Sync)| {
        let x = on(device, &random(3, 4, 715), DType::F32);
        let sum = |x: Vec<Tensor<2>>| x[0].clone().sum();
        let encode = |_: &Towers, k: &usize| encode(k, x.clone());
        let towers = Towers::new(device, DType::F32);
        Sharding::recompute().backward(&towers, &[0, 1], encode, sum);
    };
    let device = backend.autodiff();
    assert_panics("device without autodiff", || {
        run(&backend.device, &|_, x| Encoded::new([x]));
    });
    assert_panics(
        "shard 1 has embeddings of widths [3], shard 0 of [4]",
        || {
            run(&device, &|k, x| Encoded::new([x.narrow(1, 0, 4 - k)]));
        },
    );
    assert_panics("one has a loss of its own and the other has none", || {
        run(&device, &|k, x| match k {
            0 => Encoded::new([x]),
            _ => Encoded::new([x.clone()]).with_loss(x.sum()),
        });
    });
    let calls = std::sync::atomic::AtomicUsize::new(0);
    assert_panics("use `with_seed`", || {
        run(&device, &|_, x| {
            let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Encoded::new([x * (1.0 + call as f64)])
        });
    });
    assert_panics("there is no shard", || {
        let encode = |towers: &Towers, _: &usize| Encoded::new([towers.image.val()]);
        let towers = Towers::new(&device, DType::F32);
        Sharding::default().backward(&towers, &[], encode, |x| x[0].clone().sum());
    });
    assert_panics("`at_once` is 0", || {
        Sharding::keep(0);
    });
}
