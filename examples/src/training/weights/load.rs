//! Weights into a module, parameter by parameter.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, bail};
use burn::module::{Module, ModuleMapper, Param, ParamGroup, ParamId};
use burn::tensor::{Device, Shape, Tensor, TensorData};

use super::Weights;
use crate::models::resize_positions;
use crate::published::Key;
use crate::words::list;

impl Weights {
    /// A module that starts from these weights: all of it, or the parts that they are of.
    /// Parameters whose paths match one of `new` may be missing here, and those that match one of
    /// `unused` may be of no use there; one of another shape may if it matches both. Position
    /// embeddings of images of another size are interpolated.
    ///
    /// # Errors
    ///
    /// Names the parameters that are missing, unused or of another shape, and what to do.
    pub fn load_into<M: Module>(
        self,
        module: M,
        new: &[impl AsRef<str>],
        unused: &[impl AsRef<str>],
    ) -> Result<M> {
        let (module, filled) = self.fill(module, new, unused)?;
        Filled::check(&[filled])?;
        Ok(module)
    }

    /// As [`load_into`](Self::load_into), but what is missing or unused is for [`Filled::check`].
    pub(super) fn fill<M: Module>(
        self,
        module: M,
        new: &[impl AsRef<str>],
        unused: &[impl AsRef<str>],
    ) -> Result<(M, Filled)> {
        let (new, unused) = (groups(new)?, groups(unused)?);
        let mut load = Load {
            weights: self,
            path: Vec::new(),
            containers: Vec::new(),
            modules: BTreeSet::new(),
            used: BTreeSet::new(),
            given: BTreeSet::new(),
            new,
            unused: &unused,
            missing: Vec::new(),
            misshapen: Vec::new(),
            unread: None,
        };
        let module = module.map(&mut load);
        if let Some(error) = load.unread.take() {
            return Err(error);
        }
        let Weights {
            tensors,
            layout,
            source,
            parts,
            ..
        } = load.weights;
        if layout.is_some() && load.used.is_empty() {
            let modules: Vec<_> = load.modules.into_iter().collect();
            bail!(
                "{} has no parameter of the module {:?} of the model, whose modules are {}",
                source.display(),
                parts[0][0].trim_end_matches('.'),
                modules.join(", ")
            );
        }
        let from = source.display().to_string();
        if let Some(first) = load.misshapen.first() {
            bail!("{from} does not fit the model: {first}");
        }
        let is_beside = |name: &str| layout.is_some_and(|layout| layout.is_beside(name));
        let left = tensors.into_keys();
        let left = left
            .filter(|name| !load.used.contains(name) && !is_beside(name))
            .filter(|name| !matches(&unused, name));
        let filled = Filled {
            from,
            given: load.given,
            missing: load.missing,
            left: left.collect(),
        };
        Ok((module, filled))
    }
}

/// What weights gave to a module.
pub(super) struct Filled {
    from: String,
    /// The paths of the parameters that they gave.
    given: BTreeSet<String>,
    /// The paths of those that they did not give, with what their layout calls them.
    missing: Vec<(String, String)>,
    /// What the module has no use for.
    left: Vec<String>,
}

impl Filled {
    /// Checks that all weights together, each for its part of a module, give all of those parts and
    /// are all of use.
    ///
    /// # Errors
    ///
    /// Names the parameters that are missing or unused, and what to do.
    pub(super) fn check(all: &[Self]) -> Result<()> {
        let is_given = |path: &String| all.iter().any(|filled| filled.given.contains(path));
        let missing = all.iter().flat_map(|filled| &filled.missing);
        let missing: Vec<_> = missing
            .filter(|(path, _)| !is_given(path))
            .map(|(_, name)| name.clone())
            .collect();
        if !missing.is_empty() {
            let from: Vec<_> = all.iter().map(|filled| filled.from.as_str()).collect();
            bail!(
                "{} lacks {}: if they are to start anew, say so in init.new, as regular \
                 expressions of their paths",
                from.join(" with "),
                list(&missing)
            );
        }
        if let Some(Self { from, left, .. }) = all.iter().find(|filled| !filled.left.is_empty()) {
            bail!(
                "{from} has {}, which the model has no use for: if that is right, say so in \
                 init.unused, as regular expressions of their paths",
                list(left)
            );
        }
        Ok(())
    }
}

fn groups(expressions: &[impl AsRef<str>]) -> Result<Vec<ParamGroup>> {
    let group = |expression: &str| {
        ParamGroup::from_regex(expression)
            .map_err(|_| anyhow!("init: {expression:?} is no regular expression"))
    };
    let all = expressions.iter();
    all.map(|expression| group(expression.as_ref())).collect()
}

fn matches(groups: &[ParamGroup], path: &str) -> bool {
    // Groups of paths do not look at the id.
    let id = ParamId::new();
    groups.iter().any(|group| group.matches(&id, Some(path)))
}

/// Gives parameters the values of the same paths, or of the names that a layout has for them.
struct Load<'a> {
    weights: Weights,
    path: Vec<String>,
    /// The kinds of modules on that path.
    containers: Vec<String>,
    /// The paths of the outer modules, for messages.
    modules: BTreeSet<String>,
    /// The names of the tensors that parameters have taken.
    used: BTreeSet<String>,
    /// The paths of those parameters.
    given: BTreeSet<String>,
    new: Vec<ParamGroup>,
    unused: &'a [ParamGroup],
    missing: Vec<(String, String)>,
    misshapen: Vec<String>,
    /// Why values could not be read.
    unread: Option<anyhow::Error>,
}

impl Load<'_> {
    /// Whether the innermost module is of that kind.
    fn is_of(&self, kind: &str) -> bool {
        let container = self.containers.last();
        container.is_some_and(|container| container.strip_prefix("Struct:") == Some(kind))
    }

    /// Whether the positions of the innermost module are of places in an image.
    fn has_places(&self) -> bool {
        self.is_of("ImageEncoder") || self.is_of("AttentionPool")
    }

    /// Where the values of the parameter at a path are.
    fn key(&self, path: &str) -> Key {
        let weights = &self.weights;
        match weights.layout {
            Some(layout) => {
                let theirs = weights.parts.iter().find_map(|[ours, theirs]| {
                    let rest = path.strip_prefix(ours.as_str())?;
                    Some(format!("{theirs}{rest}"))
                });
                match theirs {
                    Some(theirs) => layout.key(&theirs, weights.text_layers),
                    None => Key::whole(path),
                }
            }
            None => Key {
                is_transposed: false,
                ..Key::whole(path)
            },
        }
    }

    /// The values, arranged as a parameter of `shape` has them; `None` if they do not fit it.
    fn value<const D: usize>(
        &self,
        path: &str,
        key: &Key,
        shape: &Shape,
        device: &Device,
    ) -> Result<Option<Tensor<D>>> {
        let values = &self.weights.tensors[&key.name];
        let is_transposed = key.is_transposed && self.is_of("Linear") && D == 2;
        let found = arranged_shape(&values.shape().to_vec(), key.part, is_transposed, D);
        let read = || -> Result<TensorData> {
            let mut data = values.clone().read()?;
            if key.is_temperature {
                let temperatures = data.iter::<f32>();
                let logarithms = temperatures.map(|temperature| -temperature.ln()).collect();
                data = TensorData::new(logarithms, data.shape().clone());
            }
            if self.weights.layout.is_none() {
                return Ok(data);
            }
            Ok(arranged(data, key.part, is_transposed, &found, device))
        };
        // Positions of words are no square.
        if found == shape.to_vec() {
            Ok(Some(Tensor::from_data(read()?, device)))
        } else if self.has_places() && path.ends_with("positions") {
            Ok(resized(read()?, &shape.to_vec(), device))
        } else {
            Ok(None)
        }
    }
}

impl ModuleMapper for Load<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.to_string());
        self.containers.push(container.to_string());
        if self.path.len() <= 2 {
            self.modules.insert(self.path.join("."));
        }
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let key = self.key(&path);
        if !self.weights.tensors.contains_key(&key.name) {
            let mut parts = self.weights.parts.iter();
            let is_of_part = parts.any(|[ours, _]| path.starts_with(ours));
            if is_of_part && !matches(&self.new, &path) {
                let name = named(&path, &key);
                self.missing.push((path, name));
            }
            return param;
        }
        self.used.insert(key.name.clone());
        let shape = param.lazy_shape();
        match self.value(&path, &key, &shape, &param.lazy_device()) {
            Ok(Some(value)) => {
                self.given.insert(path);
                let id = param.id;
                param.transform_for_load(value, id)
            }
            // One that may be new in place of one that may stay unused.
            Ok(None) if matches(&self.new, &path) && matches(self.unused, &path) => param,
            Ok(None) => {
                let found = self.weights.tensors[&key.name].shape();
                let [found, shape] = [found, shape].map(|shape| shape.to_vec());
                let name = named(&path, &key);
                self.misshapen
                    .push(format!("{name} is {found:?} there and {shape:?} here"));
                param
            }
            Err(error) => {
                self.unread.get_or_insert(error);
                param
            }
        }
    }
}

/// A parameter's path, behind the name that a layout has for it.
fn named(path: &str, key: &Key) -> String {
    if key.name == path {
        path.to_string()
    } else {
        format!("{} ({path})", key.name)
    }
}

/// The shape of a part of a tensor, transposed or not, with dimensions of 1 in front up to a rank.
fn arranged_shape(
    shape: &[usize],
    [_, of]: [usize; 2],
    is_transposed: bool,
    rank: usize,
) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if let Some(rows) = shape.first_mut() {
        *rows /= of;
    }
    if is_transposed {
        shape.reverse();
    }
    while shape.len() < rank {
        shape.insert(0, 1);
    }
    shape
}

/// The values of that part, transposed or not, in that shape.
fn arranged(
    data: TensorData,
    [index, of]: [usize; 2],
    is_transposed: bool,
    shape: &[usize],
    device: &Device,
) -> TensorData {
    let device = device.clone().inner();
    let rows = data.shape().first().copied().unwrap_or(1);
    let columns = data.num_elements() / rows.max(1);
    let bytes = data.as_bytes().to_vec();
    let data = TensorData::from_bytes_vec(bytes, [rows, columns], data.dtype());
    let mut part = Tensor::<2>::from_data(data, &device).narrow(0, index * (rows / of), rows / of);
    if is_transposed {
        part = part.transpose();
    }
    let data = part.into_data();
    TensorData::from_bytes_vec(data.as_bytes().to_vec(), shape, data.dtype())
}

/// Position embeddings `[1, tokens, width]` of square images, for images of another size.
fn resized<const D: usize>(data: TensorData, to: &[usize], device: &Device) -> Option<Tensor<D>> {
    let from = data.shape().to_vec();
    let (&[1, old, width], &[1, new, same]) = (&from[..], to) else {
        return None;
    };
    let side = |patches: usize| {
        let side = patches.isqrt();
        (side > 0 && side.pow(2) == patches).then_some(side)
    };
    // A class token stands before the patches of both, or of none.
    let is_square = |tokens: usize, first| tokens.checked_sub(first).and_then(side).is_some();
    let first = (0..2).find(|&first| is_square(old, first) && is_square(new, first))?;
    if width != same {
        return None;
    }
    let positions = Tensor::<3>::from_data(data, device);
    let resized = resize_positions(positions, first, side(new - first)?);
    Some(Tensor::from_data(resized.into_data(), device))
}
