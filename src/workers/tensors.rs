//! Tensors between workers, through the memory of the host or by Burn's collectives.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, DeviceId, DeviceOps, Dispatch};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::distributed::ReduceOperation;
use burn::tensor::{DType, Element, Tensor, TensorData};
use bytemuck::{Pod, cast_slice, pod_collect_to_vec};

use super::{Workers, all_there, part};

/// What moves: f64 as it is, all narrower floats as f32.
pub(crate) trait Moved: Pod + Element {
    /// The values of a tensor.
    fn values(data: TensorData) -> Vec<Self> {
        let values = data.convert::<Self>().try_into_vec();
        values.expect("converted to this type")
    }
}

impl Moved for f32 {}
impl Moved for f64 {}

/// The values of all workers, in the order of ranks.
pub(crate) fn gather_values<T: Pod>(workers: &dyn Workers, mine: &[T]) -> Vec<Vec<T>> {
    let all = all_there(workers.gather(cast_slice(mine)));
    all.iter()
        .map(|values| pod_collect_to_vec(values))
        .collect()
}

/// Joins the vectors of all workers position by position: `join` is given those of the workers so
/// far and those of the next one, in the order of ranks. Each worker joins a part of the
/// positions, and all have the whole.
///
/// # Shapes
///
/// - `vectors`: any count of one length, on every worker the same
pub(crate) fn all_reduce<T: Pod>(
    workers: &dyn Workers,
    vectors: &[&[T]],
    join: impl Fn(&mut [Vec<T>], &[Vec<T>]),
) -> Vec<Vec<T>> {
    let (count, len) = (workers.count(), vectors.first().map_or(0, |x| x.len()));
    let of_worker = |rank| {
        let part = part(len, rank, count);
        let parts: Vec<&[T]> = vectors.iter().map(|x| &x[part.clone()]).collect();
        parts.concat()
    };
    let parts: Vec<Vec<T>> = (0..count).map(of_worker).collect();
    let parts: Vec<&[u8]> = parts.iter().map(|part| cast_slice(part)).collect();
    let received = all_there(workers.exchange(&parts));
    let split = |values: Vec<T>, rank: usize| -> Vec<Vec<T>> {
        let len = part(len, rank, count).len();
        let vector = |k: usize| values[k * len..][..len].to_vec();
        (0..vectors.len()).map(vector).collect()
    };
    let mut received = received
        .iter()
        .map(|bytes| split(pod_collect_to_vec(bytes), workers.rank()));
    let mut joined = received.next().expect("there is a worker");
    received.for_each(|next| join(&mut joined, &next));

    let mut whole = vec![Vec::with_capacity(len); vectors.len()];
    let all = gather_values(workers, &joined.concat());
    for (rank, values) in all.into_iter().enumerate() {
        for (whole, part) in whole.iter_mut().zip(split(values, rank)) {
            whole.extend(part);
        }
    }
    whole
}

/// The sum of all workers' vectors, which are of one length, added up in the order of ranks.
pub(crate) fn sum_values<T: Moved>(workers: &dyn Workers, mine: &[T]) -> Vec<T> {
    let add = |sum: &mut [Vec<T>], next: &[Vec<T>]| {
        for (sum, next) in sum[0].iter_mut().zip(&next[0]) {
            *sum = T::from_elem(sum.to_f64() + next.to_f64());
        }
    };
    all_reduce(workers, &[mine], add).swap_remove(0)
}

/// The devices that Burn's collectives connect, if they do.
pub(crate) fn collective(workers: &dyn Workers) -> Option<Vec<DeviceId>> {
    let devices = workers.devices()?.iter();
    Some(devices.map(|device| device.as_dispatch().id()).collect())
}

/// The sum of the tensors of all devices, by Burn's collectives.
pub(crate) fn sum_on_devices<B: Backend>(
    tensor: FloatTensor<B>,
    devices: &[DeviceId],
) -> FloatTensor<B> {
    B::all_reduce(tensor, ReduceOperation::Sum, devices.to_vec()).resolve()
}

/// The rows of all workers, in the order of ranks; on the device of those of this one.
pub(crate) fn gather_rows(workers: &dyn Workers, rows: Tensor<2>) -> Tensor<2> {
    fn gather<T: Moved>(workers: &dyn Workers, rows: Tensor<2>) -> TensorData {
        let [_, width] = rows.dims();
        let all = gather_values(workers, &T::values(rows.into_data())).concat();
        let count = all.len() / width;
        TensorData::new(all, [count, width])
    }

    let (device, dtype) = (rows.device(), rows.dtype());
    if let Some(devices) = collective(workers) {
        // Burn has no gathering: each adds its rows to zeros.
        let [own, width] = rows.dims();
        let counts = gather_values(workers, &[own as u64]).concat();
        let sum = |counts: &[u64]| counts.iter().sum::<u64>() as usize;
        let (start, all) = (sum(&counts[..workers.rank()]), sum(&counts));
        let zeros = Tensor::<2>::zeros([all, width], (&device, dtype));
        let padded = zeros.slice_assign([start..start + own, 0..width], rows);
        let all = sum_on_devices::<Dispatch>(padded.into_dispatch(), &devices);
        return Tensor::from_dispatch(all);
    }
    let all = match dtype {
        DType::F64 => gather::<f64>(workers, rows),
        _ => gather::<f32>(workers, rows),
    };
    Tensor::from_data(all.convert_dtype(dtype), (&device, dtype))
}

/// The sum over all workers of `x`, `[1]`.
pub(crate) fn sum_scalar(workers: &dyn Workers, x: Tensor<1>) -> Tensor<1> {
    let (device, dtype) = (x.device(), x.dtype());
    let sum = sum_values::<f64>(workers, &f64::values(x.into_data()));
    Tensor::from_data(
        TensorData::new(sum, [1]).convert_dtype(dtype),
        (&device, dtype),
    )
}

/// The sum of all workers' gradients. A parameter that has one on any worker has it on all.
pub(crate) fn sum_gradients<M: Module>(
    workers: &dyn Workers,
    model: &M,
    gradients: GradientsParams,
) -> GradientsParams {
    let mut has = Has {
        gradients: &gradients,
        f64: false,
        each: Vec::new(),
    };
    model.visit(&mut has);
    let on_workers = gather_values(workers, &has.each);
    let anywhere = |k: usize| on_workers.iter().any(|each| each[k] != 0);
    let has_any: Vec<_> = (0..has.each.len()).map(anywhere).collect();
    if let Some(devices) = collective(workers) {
        let mut sums = OnDevices {
            from: gradients,
            to: GradientsParams::new(),
            has_any: has_any.into_iter(),
            devices,
        };
        model.visit(&mut sums);
        sums.to
    } else if has.f64 {
        sum_gradients_in::<f64, M>(workers, model, gradients, has_any)
    } else {
        sum_gradients_in::<f32, M>(workers, model, gradients, has_any)
    }
}

fn sum_gradients_in<T: Moved, M: Module>(
    workers: &dyn Workers,
    model: &M,
    gradients: GradientsParams,
    has_any: Vec<bool>,
) -> GradientsParams {
    let mut flat = Flat::<T> {
        gradients,
        has_any: has_any.clone().into_iter(),
        values: Vec::new(),
    };
    model.visit(&mut flat);
    let mut sums = Unflat {
        gradients: GradientsParams::new(),
        has_any: has_any.into_iter(),
        values: sum_values(workers, &flat.values).into_iter(),
    };
    model.visit(&mut sums);
    sums.gradients
}

/// Which parameters have a gradient, in the order of the module.
struct Has<'a> {
    gradients: &'a GradientsParams,
    /// Whether a parameter is f64.
    f64: bool,
    each: Vec<u8>,
}

impl ModuleVisitor for Has<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.f64 |= param.val().dtype() == DType::F64;
        let has = self.gradients.get::<D>(param.id).is_some();
        self.each.push(u8::from(has));
    }
}

/// The gradients, one after the other; zeros where another worker has one.
struct Flat<T> {
    gradients: GradientsParams,
    has_any: std::vec::IntoIter<bool>,
    values: Vec<T>,
}

impl<T: Moved> ModuleVisitor for Flat<T> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.has_any.next() != Some(true) {
            return;
        }
        match self.gradients.remove::<D>(param.id) {
            Some(gradient) => self.values.extend(T::values(gradient.into_data())),
            None => {
                let zeros = vec![T::from_elem(0.0); param.val().shape().num_elements()];
                self.values.extend(zeros);
            }
        }
    }
}

/// Each gradient added up by Burn's collectives.
struct OnDevices {
    from: GradientsParams,
    to: GradientsParams,
    has_any: std::vec::IntoIter<bool>,
    devices: Vec<DeviceId>,
}

impl ModuleVisitor for OnDevices {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.has_any.next() != Some(true) {
            return;
        }
        let zeros = || param.val().inner().zeros_like();
        let own = self.from.remove::<D>(param.id).unwrap_or_else(zeros);
        let sum = sum_on_devices::<Dispatch>(own.into_dispatch(), &self.devices);
        self.to.register(param.id, Tensor::<D>::from_dispatch(sum));
    }
}

struct Unflat<T> {
    gradients: GradientsParams,
    has_any: std::vec::IntoIter<bool>,
    values: std::vec::IntoIter<T>,
}

impl<T: Moved> ModuleVisitor for Unflat<T> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.has_any.next() != Some(true) {
            return;
        }
        let value = param.val();
        let (shape, dtype) = (value.shape(), value.dtype());
        let values: Vec<T> = self.values.by_ref().take(shape.num_elements()).collect();
        let data = TensorData::new(values, shape).convert_dtype(dtype);
        let device = value.device().inner();
        let gradient = Tensor::<D>::from_data(data, (&device, dtype));
        self.gradients.register(param.id, gradient);
    }
}
