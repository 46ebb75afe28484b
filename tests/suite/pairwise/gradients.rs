//! Strides, untracked inputs, gradient checkpointing, and results that are used twice.

use super::*;

on_every_backend! {
    strided_tensors_match_contiguous_ones,
    an_untracked_input_leaves_other_gradients_unchanged,
    gradient_checkpointing_changes_nothing,
    results_used_twice_have_twice_the_gradient,
    no_gradient_flows_to_the_teacher,
}

fn strided_tensors_match_contiguous_ones(backend: &Backend) {
    let (a, b) = (random(5, 4, 200), random(6, 4, 201));
    let device = backend.autodiff();
    let strided = |m: &Matrix| {
        let columns = (0..m.width).flat_map(|k| (0..m.rows).map(move |i| m.row(i)[k]));
        let transposed = Matrix::new(m.width, m.rows, columns.collect());
        on(&device, &transposed, DType::F32).require_grad()
    };
    let (at, bt) = (strided(&a), strided(&b));
    let mask: Vec<bool> = (0..30).map(|k| k % 4 == 1).collect();
    let mask = |strides: bool| {
        if strides {
            // The transpose of the transposed mask.
            let columns = (0..6).flat_map(|j| (0..5).map(move |i| i * 6 + j));
            let data = columns.map(|k| mask[k]).collect::<Vec<_>>();
            Tensor::<2, Bool>::from_data(TensorData::new(data, [6, 5]), &device).transpose()
        } else {
            Tensor::from_data(TensorData::new(mask.clone(), [5, 6]), &device)
        }
    };
    let run = |a: Tensor<2>, b: Tensor<2>, strides: bool| {
        let mut pairs = Pairs::new(a, b);
        let masked = pairs.mask(mask(strides));
        let x = pairs.similarity().square() * &masked + &pairs.similarity();
        pairs.reduce(&[rows().sum(&x), columns().log_sum_exp(&x)])
    };
    let results = run(at.clone().transpose(), bt.clone().transpose(), true);
    let by_strided = gradients_of(&at, &bt, loss(&results));
    let (ac, bc) = (on(&device, &a, DType::F32), on(&device, &b, DType::F32));
    let (ac, bc) = (ac.require_grad(), bc.require_grad());
    let expected = run(ac.clone(), bc.clone(), false);
    let by_contiguous = gradients_of(&ac, &bc, loss(&expected));
    for (actual, expected) in results.into_iter().zip(expected) {
        assert_close(&elements(actual), &elements(expected), 1e-6);
    }
    for ((strided, contiguous), m) in by_strided.iter().zip(&by_contiguous).zip([&a, &b]) {
        let columns = (0..m.width).flat_map(|k| (0..m.rows).map(move |i| i * m.width + k));
        assert_close(
            strided,
            &columns.map(|k| contiguous[k]).collect::<Vec<_>>(),
            1e-6,
        );
    }
}

fn an_untracked_input_leaves_other_gradients_unchanged(backend: &Backend) {
    let device = backend.autodiff();
    let tensor = |seed| on(&device, &random(5, 4, seed), DType::F32);
    let scale = || Tensor::<1>::from_data([2.0f32], &device);
    let run = |a: &Tensor<2>, b: &Tensor<2>, s: &Tensor<1>, whole: bool| {
        let mut pairs = Pairs::new(a.clone(), b.clone());
        let logit = pairs.similarity() * &pairs.scalar(s.clone());
        let loss = if whole {
            pairs.total(&logit.softplus())
        } else {
            loss(&pairs.reduce(&reductions(&logit)))
        };
        loss.backward()
    };
    for whole in [true, false] {
        let (a, b, s) = (
            tensor(202).require_grad(),
            tensor(203).require_grad(),
            scale().require_grad(),
        );
        let all = run(&a, &b, &s, whole);
        let [by_a, by_b] = [&a, &b].map(|t| elements(t.grad(&all).unwrap()));
        let by_s = elements(s.grad(&all).unwrap());
        let (fa, fb, fs) = (tensor(202), tensor(203), scale());
        for (a, b, s) in [
            (&a, &fb, &fs),
            (&fa, &b, &fs),
            (&fa, &fb, &s),
            (&a, &fb, &s),
        ] {
            let gradients = run(a, b, s, whole);
            for (t, expected) in [(a, &by_a), (b, &by_b)] {
                assert_eq!(t.grad(&gradients).is_some(), t.is_require_grad());
                if let Some(g) = t.grad(&gradients) {
                    assert_close(&elements(g), expected, 1e-6);
                }
            }
            assert_eq!(s.grad(&gradients).is_some(), s.is_require_grad());
            if let Some(g) = s.grad(&gradients) {
                assert_close(&elements(g), &by_s, 1e-6);
            }
        }
        // Nothing tracked at all, on an autodiff device and on the plain one.
        let pairs = Pairs::new(fa.clone(), fb.clone());
        let on_autodiff = pairs.clone().total(&pairs.similarity());
        let pairs = Pairs::new(fa.inner(), fb.inner());
        let on_plain = pairs.clone().total(&pairs.similarity());
        assert_close(&elements(on_autodiff), &elements(on_plain), 1e-6);
    }
}

fn gradient_checkpointing_changes_nothing(backend: &Backend) {
    let inputs = inputs(4, 5, 3, 204);
    let how = How::new(backend, DType::F32);
    let checkpointing = How {
        device: backend.checkpointing(),
        ..how.clone()
    };
    let removal = families()
        .into_iter()
        .find(|case| case.name.starts_with("pairs below a threshold"));
    for case in [edge_case(), removal.expect("a family")] {
        let actual = evaluate(&case, &inputs, &checkpointing);
        assert_same(case.name, &actual, &evaluate(&case, &inputs, &how), 1e-6);
    }
    // Embeddings that are computed themselves, cheaply enough to be computed again.
    let gradient = |device: &Device| {
        let x = on(device, &random(4, 3, 205), DType::F32).require_grad();
        let pairs = Pairs::new(x.clone().tanh(), x.clone() * 2.0);
        let results = pairs.clone().reduce(&reductions(&pairs.similarity()));
        let twice = loss(&results) + pairs.clone().total(&pairs.similarity().exp());
        elements(x.grad(&twice.backward()).unwrap())
    };
    assert_close(
        &gradient(&checkpointing.device),
        &gradient(&how.device),
        1e-6,
    );
}

fn results_used_twice_have_twice_the_gradient(backend: &Backend) {
    let device = backend.autodiff();
    let tensor = |seed| on(&device, &random(5, 4, seed), DType::F32).require_grad();
    let (a, b) = (tensor(206), tensor(207));
    let pairs = Pairs::new(a.clone(), b.clone());
    let run = || pairs.clone().reduce(&reductions(&pairs.similarity()));
    let once = gradients_of(&a, &b, loss(&run()));
    let results = run();
    let total = run()[0].clone().sum() + loss(&results) + loss(&results) - results[0].clone().sum();
    for (twice, once) in gradients_of(&a, &b, total).iter().zip(&once) {
        let expected: Vec<_> = once.iter().map(|g| 2.0 * g).collect();
        assert_close(twice, &expected, 1e-5);
    }
    let total = pairs.clone().total(&pairs.similarity().exp());
    let scaled = gradients_of(&a, &b, total.clone() * total.clone());
    let once = gradients_of(&a, &b, pairs.clone().total(&pairs.similarity().exp()));
    let factor = 2.0 * elements(total)[0];
    for (scaled, once) in scaled.iter().zip(&once) {
        assert_close(
            scaled,
            &once.iter().map(|g| factor * g).collect::<Vec<_>>(),
            1e-5,
        );
    }
}

fn no_gradient_flows_to_the_teacher(backend: &Backend) {
    let device = backend.autodiff();
    let tensor = |seed| on(&device, &random(5, 4, seed), DType::F32).require_grad();
    let [a, b, ta, tb] = [210, 211, 212, 213].map(tensor);
    let mut pairs = Pairs::new(a.clone(), b.clone());
    let x = pairs.teacher(ta.clone(), tb.clone()) * &pairs.similarity();
    let gradients = pairs.total(&x).backward();
    assert!(a.grad(&gradients).is_some() && b.grad(&gradients).is_some());
    assert!(ta.grad(&gradients).is_none() && tb.grad(&gradients).is_none());
}
