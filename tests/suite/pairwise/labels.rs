//! Labels, and ties of a maximum.

use super::*;

on_every_backend! {
    labels_are_compared_exactly,
    ties_go_to_the_lowest_index,
}

on_cpu_backends! {
    ties_in_different_tiles_go_to_the_lowest_index,
}

fn labels_are_compared_exactly(backend: &Backend) {
    let device = &backend.device;
    let check = |rows_of: &[i64], columns_of: &[i64], dtypes: [DType; 2]| {
        let labels = |labels: &[i64], dtype| {
            let data = TensorData::new(labels.to_vec(), [labels.len()]).convert_dtype(dtype);
            Tensor::<1, Int>::from_data(data, (device, dtype))
        };
        let embeddings = |n| Tensor::<2>::ones([n, 1], device);
        let mut pairs = Pairs::new(embeddings(rows_of.len()), embeddings(columns_of.len()));
        let same = pairs.same_label(labels(rows_of, dtypes[0]), labels(columns_of, dtypes[1]));
        let place = pairs.row(Tensor::<1, Int>::arange(0..rows_of.len() as i64, device).float());
        let two = (Expr::constant(0.5) * &place).exp() * &same;
        let found = pairs.reduce(&[rows().sum(&same), columns().sum(&two)]);
        let counts = rows_of
            .iter()
            .map(|r| columns_of.iter().filter(|c| r == *c).count() as f64);
        let sums = columns_of.iter().map(|c| {
            let same = rows_of.iter().enumerate().filter(|(_, r)| *r == c);
            same.map(|(i, _)| (0.5 * i as f64).exp()).sum::<f64>()
        });
        let expected = [counts.collect::<Vec<_>>(), sums.collect()];
        for (found, expected) in found.into_iter().zip(expected) {
            assert_close(&elements(found), &expected, 1e-6);
        }
    };
    let big = 1 << 24;
    let narrow = [
        0,
        1,
        -1,
        7,
        big,
        big + 1,
        -big,
        -big - 1,
        big - 1,
        1 << 22,
        -(1 << 22),
    ];
    let ends = [
        i64::from(i32::MIN),
        i64::from(i32::MAX),
        i64::from(i32::MIN) + 1,
        5,
        -5,
    ];
    for (x, y) in [(&narrow[..], &narrow[..]), (&ends, &narrow), (&ends, &ends)] {
        check(x, y, [DType::I32, DType::I32]);
    }
    if device.supports_dtype(DType::I64) {
        let wide = [
            0,
            1 << 22,
            1 << 44,
            1 << 53,
            (1 << 53) + 1,
            i64::MAX,
            i64::MAX - 1,
            i64::MIN,
            i64::MIN + 1,
            -(1 << 44),
            -1,
        ];
        check(&wide, &wide, [DType::I64, DType::I64]);
        check(&wide, &narrow, [DType::I64, DType::I32]);
        check(&narrow, &wide, [DType::I32, DType::I64]);
    }
    let small = [0, 1, 2, 100, 127, 64];
    for dtype in [DType::I16, DType::I8, DType::U8, DType::U32] {
        if device.supports_dtype(dtype) {
            check(&small, &small, [dtype, dtype]);
        }
    }
}

fn ties_go_to_the_lowest_index(backend: &Backend) {
    // Rows and columns in groups of equal embeddings.
    let a = Matrix::new(
        6,
        2,
        [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]].repeat(2).concat(),
    );
    let b = Matrix::new(
        5,
        2,
        [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]].concat(),
    );
    let tensor = |m| backend.tensor(m, DType::F32);
    let [by_row, by_column] = hardest(Pairs::new(tensor(&a), tensor(&b)), &Expr::constant(0.0));
    let indices = |index: Tensor<1, Int>| elements(index.float());
    assert_eq!(indices(by_row.index), [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
    assert_eq!(indices(by_column.index), [2.0, 0.0, 0.0, 2.0, 0.0]);
    let [by_row, by_column] = hardest(Pairs::new(tensor(&a), tensor(&b)), &Expr::diagonal());
    assert_eq!(indices(by_row.index), [1.0, 2.0, 0.0, 1.0, 1.0, 0.0]);
    assert_eq!(indices(by_column.index), [2.0, 0.0, 0.0, 2.0, 0.0]);
    assert_close(&elements(by_row.similarity), &[1.0; 6], 1e-6);
}

fn ties_in_different_tiles_go_to_the_lowest_index(backend: &Backend) {
    let equal = Tensor::<2>::ones([150, 2], &backend.device);
    for budget in [1, 1 << 20] {
        let pairs = Pairs::new(equal.clone(), equal.clone()).with_memory_budget(budget);
        let [by_row, by_column] = hardest(pairs, &Expr::diagonal());
        let mut expected = vec![0.0; 150];
        expected[0] = 1.0;
        assert_eq!(elements(by_row.index.float()), expected);
        assert_eq!(elements(by_column.index.float()), expected);
    }
}
