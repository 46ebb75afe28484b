//! Results of a public implementation: see the scripts in `tests/fixtures`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Gradients, Int, Shape, Tensor, TensorData};
use burn_contrastive_examples::published::{Key, Published};
use burn_contrastive_examples::training::weights::Weights;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// The tensors of one file.
pub struct Reference(BTreeMap<String, TensorData>);

impl Reference {
    /// Reads a file of `tests/fixtures`. A number on its own becomes a tensor of one element.
    pub fn read(name: &str) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
        Self::read_file(Path::new(&format!("{folder}/{name}.safetensors")))
    }

    /// Reads a file of any place.
    pub fn read_file(file: &Path) -> Self {
        let bytes = std::fs::read(file).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, tensor)| {
            let bytes = tensor.data();
            let words = || bytes.chunks_exact(4).map(|word| word.try_into().unwrap());
            let shape = Shape::from(match tensor.shape() {
                [] => vec![1],
                shape => shape.to_vec(),
            });
            let data = match tensor.dtype() {
                Dtype::F32 => TensorData::new(words().map(f32::from_le_bytes).collect(), shape),
                Dtype::I32 => TensorData::new(words().map(i32::from_le_bytes).collect(), shape),
                Dtype::U8 => TensorData::new(bytes.iter().map(|&x| x != 0).collect(), shape),
                other => panic!("{name} is of {other:?}"),
            };
            (name.to_owned(), data)
        });
        Self(tensors.collect())
    }

    /// A module with the reference's weights, which go through a file as users have them; those
    /// whose paths match `new` start anew, those whose names match `unused` are left.
    pub fn load_published<M: Module>(
        &self,
        module: M,
        text_layers: usize,
        [new, unused]: [&[&str]; 2],
    ) -> M {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights.safetensors");
        self.write_weights(&file);
        let published = Published::open(&file).unwrap();
        let weights = Weights::published(published, "", text_layers);
        weights.load_into(module, new, unused).unwrap()
    }

    /// Writes the weights into a file as the reference's library does.
    pub fn write_weights(&self, file: &Path) {
        let named = self.0.iter().filter_map(|(name, data)| {
            let name = name.strip_prefix("weight.")?;
            let bytes = data.as_bytes();
            let view = TensorView::new(Dtype::F32, data.shape().to_vec(), bytes).unwrap();
            Some((name, view))
        });
        safetensors::serialize_to_file(named, None, file).unwrap();
    }

    fn data(&self, name: &str) -> TensorData {
        let data = self.0.get(name);
        data.unwrap_or_else(|| panic!("no {name}")).clone()
    }

    /// An input of floats.
    pub fn input<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        Tensor::from_data(self.data(&format!("input.{name}")), device)
    }

    /// An input of integers.
    pub fn integers<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D, Int> {
        Tensor::from_data(self.data(&format!("input.{name}")), device)
    }

    /// An input that is true where a token is padding.
    pub fn padding(&self, name: &str, device: &Device) -> Tensor<2, Bool> {
        Tensor::from_data(self.data(&format!("input.{name}")), device)
    }

    /// Checks what came out.
    pub fn check<const D: usize>(&self, name: &str, actual: Tensor<D>) {
        assert_close(actual, self.data(name), name);
    }

    /// Checks what came out where there is no padding.
    pub fn check_present(&self, name: &str, actual: Tensor<3>, padding: Tensor<2, Bool>) {
        let expected = Tensor::from_data(self.data(name), &actual.device());
        let padding: Tensor<3, Bool> = padding.unsqueeze_dim(2);
        let shape = actual.dims();
        let present = |x: Tensor<3>| x.mask_fill(padding.clone().expand(shape), 0.0);
        assert_close(present(actual), present(expected).into_data(), name);
    }

    /// A module with the reference's weights.
    ///
    /// `key` translates the path of a parameter into the reference's name for it.
    ///
    /// # Panics
    ///
    /// If a parameter has no weight, or no parameter uses a weight.
    pub fn load<M: Module>(&self, module: M, key: impl Fn(&str) -> Key) -> M {
        let mut loader = Loader {
            walk: Walk::new(self, "weight", key),
        };
        let module = module.map(&mut loader);
        loader.walk.assert_all_used();
        module
    }

    /// The sum whose gradients are in a file with a probe.
    pub fn probed<const D: usize>(&self, output: Tensor<D>) -> Tensor<1> {
        let probe = self.input("probe", &output.device());
        (output * probe).sum()
    }

    /// Checks the gradients of `value` by all parameters of a module.
    pub fn check_gradients<M: Module>(
        &self,
        module: &M,
        value: Tensor<1>,
        key: impl Fn(&str) -> Key,
    ) {
        self.check_those(module, value.backward(), key, &[]);
    }

    /// Checks gradients that the reference has under another name than usual, to `bound` of the
    /// largest.
    pub fn check_gradients_of<M: Module>(
        &self,
        module: &M,
        value: Tensor<1>,
        kind: &str,
        bound: f32,
        key: impl Fn(&str) -> Key,
    ) {
        let mut checker = Checker {
            walk: Walk::new(self, kind, key),
            bound,
            gradients: Some(value.backward()),
        };
        module.visit(&mut checker);
        checker.walk.assert_all_used();
    }

    /// Checks gradients by all parameters of a module, which are all that the reference has
    /// `besides` those of that name.
    pub fn check_those<M: Module>(
        &self,
        module: &M,
        gradients: Gradients,
        key: impl Fn(&str) -> Key,
        besides: &[&str],
    ) {
        let mut checker = Checker {
            walk: Walk::new(self, "gradient", key),
            bound: BOUND,
            gradients: Some(gradients),
        };
        module.visit(&mut checker);
        let besides = besides.iter().map(|name| (name.to_string(), 0));
        checker.walk.used.extend(besides);
        checker.walk.assert_all_used();
    }

    /// By how much of its largest number each gradient is off that the reference has, by the paths
    /// of the parameters.
    pub fn gradient_errors<M: Module>(
        &self,
        module: &M,
        gradients: Gradients,
        key: impl Fn(&str) -> Key,
    ) -> Vec<(String, f32)> {
        let mut errors = Errors {
            walk: Walk::new(self, "gradient", key),
            gradients,
            found: Vec::new(),
        };
        module.visit(&mut errors);
        errors.walk.assert_all_used();
        errors.found
    }

    /// A number on its own.
    pub fn number(&self, name: &str) -> f32 {
        self.data(name).iter().next().unwrap()
    }

    /// By how much of its largest number an output is off.
    pub fn error<const D: usize>(&self, name: &str, actual: Tensor<D>) -> f32 {
        relative_error(actual, self.data(name))
    }

    /// Checks what a module keeps and does not train, such as running statistics: all that the
    /// reference has of that kind.
    pub fn check_kept<M: Module>(&self, module: &M, kind: &str, key: impl Fn(&str) -> Key) {
        let mut checker = Checker {
            walk: Walk::new(self, kind, key),
            bound: BOUND,
            gradients: None,
        };
        module.visit(&mut checker);
        checker.walk.assert_all_used();
    }
}

/// A walk over parameters with the reference's tensors of one kind.
struct Walk<'a, F> {
    reference: &'a Reference,
    kind: &'a str,
    key: F,
    path: Vec<String>,
    containers: Vec<String>,
    used: BTreeSet<(String, usize)>,
}

impl<'a, F: Fn(&str) -> Key> Walk<'a, F> {
    fn new(reference: &'a Reference, kind: &'a str, key: F) -> Self {
        Self {
            reference,
            kind,
            key,
            path: Vec::new(),
            containers: Vec::new(),
            used: BTreeSet::new(),
        }
    }

    fn enter(&mut self, name: &str, container: &str) {
        self.path.push(name.to_owned());
        self.containers.push(container.to_owned());
    }

    fn exit(&mut self) {
        self.path.pop();
        self.containers.pop();
    }

    /// The reference's tensor for the parameter at the path, in Burn's layout.
    fn tensor<const D: usize>(&mut self, shape: Shape) -> TensorData {
        let Key {
            name,
            part,
            is_transposed,
            ..
        } = (self.key)(&self.path.join("."));
        let [index, of] = part;
        let data = self.reference.data(&format!("{}.{name}", self.kind));
        let rows = data.shape()[0] / of;
        let of_linear = self.containers.last().is_some_and(|c| c == "Struct:Linear");
        let device = Device::flex();
        let data = if D == 2 && of_linear && is_transposed {
            let matrix = Tensor::<2>::from_data(data, &device);
            let part = matrix.narrow(0, index * rows, rows);
            part.transpose().into_data()
        } else {
            let missing = D - data.shape().len();
            let shape = [vec![1; missing], data.shape().to_vec()].concat();
            let data = TensorData::new(data.iter::<f32>().collect(), shape);
            let tensor = Tensor::<D>::from_data(data, &device);
            let rows = rows.min(tensor.dims()[0]);
            tensor.narrow(0, index * rows, rows).into_data()
        };
        assert_eq!(data.shape(), &shape, "{name}");
        assert!(
            self.used.insert((name.clone(), index)),
            "{name} is used twice"
        );
        data
    }

    /// Every tensor of the reference was used, and every part of it.
    fn assert_all_used(&self) {
        let prefix = format!("{}.", self.kind);
        let names = self.reference.0.keys();
        for name in names.filter_map(|name| name.strip_prefix(&prefix)) {
            let used = self.used.iter().any(|(used, _)| used == name);
            assert!(used, "no parameter uses {prefix}{name}");
        }
    }
}

struct Loader<'a, F> {
    walk: Walk<'a, F>,
}

impl<F: Fn(&str) -> Key> ModuleMapper for Loader<'_, F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let data = self.walk.tensor::<D>(param.lazy_shape());
        param.map(|old| {
            let trains = old.is_require_grad();
            Tensor::from_data(data, &old.device()).set_require_grad(trains)
        })
    }
}

struct Checker<'a, F> {
    walk: Walk<'a, F>,
    bound: f32,
    /// Those to check; `None` checks the values of what does not train.
    gradients: Option<Gradients>,
}

impl<F: Fn(&str) -> Key> ModuleVisitor for Checker<'_, F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.walk.path.join(".");
        let value = param.val();
        let actual = match &self.gradients {
            Some(gradients) => {
                let gradient = value.grad(gradients);
                if gradient.is_none() && !value.is_require_grad() {
                    return;
                }
                gradient.unwrap_or_else(|| panic!("{path} has no gradient"))
            }
            None if value.is_require_grad() => return,
            None => value.without_autodiff(),
        };
        let expected = self.walk.tensor::<D>(param.lazy_shape());
        assert_within(self.bound, actual, expected, &path);
    }
}

/// Measures gradients that the reference has, of which it need not have all.
struct Errors<'a, F> {
    walk: Walk<'a, F>,
    gradients: Gradients,
    found: Vec<(String, f32)>,
}

impl<F: Fn(&str) -> Key> ModuleVisitor for Errors<'_, F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.walk.path.join(".");
        let name = format!("gradient.{}", (self.walk.key)(&path).name);
        if !self.walk.reference.0.contains_key(&name) {
            return;
        }
        let gradient = param.val().grad(&self.gradients);
        let gradient = gradient.unwrap_or_else(|| panic!("{path} has no gradient"));
        let expected = self.walk.tensor::<D>(param.lazy_shape());
        self.found.push((path, relative_error(gradient, expected)));
    }
}

/// The largest difference, of the largest number expected.
fn relative_error<const D: usize>(actual: Tensor<D>, expected: TensorData) -> f32 {
    let actual = actual.into_data();
    assert_eq!(actual.shape(), expected.shape());
    let largest = expected.iter::<f32>().fold(0.0, |a: f32, b| a.max(b.abs()));
    let pairs = actual.iter::<f32>().zip(expected.iter::<f32>());
    // A NaN is no small error.
    let worst = pairs.map(|(actual, expected)| (actual - expected).abs());
    let worst = worst.fold(0.0, |a: f32, b| if b > a || b.is_nan() { b } else { a });
    worst / largest
}

/// How far a value may be off, of the largest, or of 1 where that is larger.
const BOUND: f32 = 1e-5;

/// Checks that no value is off by more than that.
fn assert_close<const D: usize>(actual: Tensor<D>, expected: TensorData, name: &str) {
    assert_within(BOUND, actual, expected, name);
}

fn assert_within<const D: usize>(bound: f32, actual: Tensor<D>, expected: TensorData, name: &str) {
    let actual = actual.into_data();
    assert_eq!(actual.shape(), expected.shape(), "{name}");
    let largest = expected.iter::<f32>().fold(1.0, |a: f32, b| a.max(b.abs()));
    for (actual, expected) in actual.iter::<f32>().zip(expected.iter::<f32>()) {
        let error = (actual - expected).abs();
        assert!(
            error <= bound * largest,
            "{name}: {actual} instead of {expected}"
        );
    }
}
