//! On a device whose backend is on in Burn and off in burn-contrastive, an objective says which
//! feature to enable.
//!
//! A package of its own, since within one build of one package cargo unifies features: in the tests
//! of burn-contrastive, `burn/flex` implies its own `flex`.

use std::panic::catch_unwind;

use burn::tensor::{Device, Distribution, Tensor};
use burn_contrastive::objective::InfoNceConfig;

#[test]
fn a_device_without_its_feature_is_refused_with_the_way_out() {
    let panic = catch_unwind(|| {
        let device = Device::flex().autodiff();
        let embeddings =
            || Tensor::<2>::random([5, 3], Distribution::Default, &device).require_grad();
        let objective = InfoNceConfig::new().init(&device);
        objective.forward_no_reduction(embeddings(), embeddings(), ())
    });
    let panic = panic.expect_err("a refusal");
    let message = panic.downcast_ref::<String>().expect("a message");
    for part in ["is built without the backend of", "enable its feature"] {
        assert!(message.contains(part), "{message}");
    }
}
