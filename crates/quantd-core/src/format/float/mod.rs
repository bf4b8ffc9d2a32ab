//! Floats of 8 and 16 bits. Those of 8 have one scale a slice, `code * scale`; halves have none.

mod grid;

use std::sync::Arc;

use rayon::prelude::*;

use crate::params::{Profile, Range};
use crate::partition::Partition;
use crate::report::Report;
use crate::scheme::{Coding, Granularity, NanPolicy, Options, RangeMethod, Scheme, scale_dtype};
use crate::source::Sources;
use crate::tensor::{Buffer, DType, Reals, Shape, Tensor};
use crate::word::Word;
use crate::{QuantError, Task, cost, range};
use quantd_kernels::Isa;
use quantd_kernels::minifloat::{FloatSpec, MiniFloat};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{Code, Params, QuantParams};
use quantd_kernels::sums::LaneSums;
use quantd_kernels::table::Table;

use super::slices::{
    self, Bits, PART, Prepared, Restored, Stored, Work, granularity, restore, scales, to_dtype,
};
use super::{CODES, Coded, Format, PartShape, PartType, Parts, Plan, Quantized, Restoring, SCALE};

pub(super) use grid::{Floats, saturating};

/// Floats of one kind.
#[derive(Debug)]
pub(super) struct Float {
    name: &'static str,
    summary: &'static str,
    float: MiniFloat,
    dtype: DType,
    /// Whether slices have scales.
    scaled: bool,
}

/// Rows of the table of formats.
macro_rules! rows {
    ($($(#[$doc:meta])* $row:ident: $name:literal, $summary:literal, $float:ident, $dtype:ident, $scaled:literal;)*) => {$(
        $(#[$doc])*
        pub(super) static $row: Float = Float {
            name: $name,
            summary: $summary,
            float: MiniFloat::$float,
            dtype: DType::$dtype,
            scaled: $scaled,
        };
    )*};
}

rows! {
    /// IEEE 754 binary16.
    F16: "f16", "IEEE 754 half precision, without scales", F16, F16, false;
    /// bfloat16.
    BF16: "bf16", "bfloat16, without scales", BF16, BF16, false;
    /// `float8_e4m3fn`.
    FP8_E4M3: "fp8_e4m3", "floats up to 448, of 3 bits of mantissa, with a scale", E4M3, F8E4M3, true;
    /// `float8_e5m2`.
    FP8_E5M2: "fp8_e5m2", "floats up to 57344, of 2 bits of mantissa, with a scale", E5M2, F8E5M2, true;
    /// `float8_e4m3fnuz`.
    FP8_E4M3FNUZ: "fp8_e4m3fnuz", "fp8_e4m3 of AMD CDNA 3: up to 240, without -0", E4M3_FNUZ, F8E4M3Fnuz, true;
    /// `float8_e5m2fnuz`.
    FP8_E5M2FNUZ: "fp8_e5m2fnuz", "fp8_e5m2 of AMD CDNA 3: up to 57344, without -0", E5M2_FNUZ, F8E5M2Fnuz, true;
}

/// Fields of a scheme that floats have.
const TAKEN: [&str; 13] = [
    "nan",
    "packed",
    "saturate",
    "granularity",
    "axis",
    "group_size",
    "block_shape",
    "range",
    "percentile",
    "min",
    "max",
    "scale",
    "profile",
];

/// Those of floats without scales: what is said of scales must say that there is one at most.
const UNSCALED: [&str; 6] = ["nan", "packed", "saturate", "granularity", "range", "profile"];

/// Candidates in the search for the least squared error: so many parts of the largest magnitude.
const CANDIDATES: i32 = 100;

impl Float {
    /// The range of scaled floats: one that leaves the largest magnitude to clip at.
    fn range(&self, options: &Options) -> Result<RangeMethod, QuantError> {
        let range = options.range(None)?;
        match range {
            RangeMethod::MinMax
            | RangeMethod::Percentile(_)
            | RangeMethod::Mse
            | RangeMethod::Explicit { .. }
            | RangeMethod::Given { .. } => Ok(range),
            RangeMethod::EntropyOrt
            | RangeMethod::EntropyTensorrt
            | RangeMethod::EntropyModelopt
            | RangeMethod::CrossEntropy { .. } => {
                let detail = format!("{} is for integers", range.word().name());
                Err(QuantError::field("range", detail)
                    .cure("use min_max, percentile, mse or explicit"))
            }
        }
    }

    /// Profile and saturation of a scheme.
    fn coding(&self, scheme: &Scheme) -> Result<(Profile, FloatSpec), QuantError> {
        match scheme.coding {
            Coding::Float { profile, saturate } => {
                Ok((profile, FloatSpec { saturate, ..saturating(self.float) }))
            }
            Coding::Integer(_) | Coding::Microscaling { .. } | Coding::TwoLevel { .. } => {
                Err(QuantError::field("format", "another scheme than its own"))
            }
        }
    }

    /// The scale of a slice whose largest magnitude is to become the largest number.
    fn scale<T: Real>(&self, abs_max: T, profile: Profile) -> T {
        let scale = abs_max / T::from_f64(self.float.largest().into());
        let floor = T::from_f64(f32::EPSILON.into());
        match profile {
            // torchao: `choose_qparams` of floats.
            Profile::Torch if scale < floor => floor,
            _ if scale > T::ZERO => scale,
            // compressed-tensors: `calculate_qparams`.
            Profile::CompressedTensors => T::EPSILON,
            Profile::Onnx | Profile::Torch | Profile::Tflite | Profile::Modelopt => T::ONE,
        }
    }

    fn work<'a, T: Real, C>(
        &self,
        prepared: &'a Prepared<'a, T>,
        (table, scheme): (&'a Table<T>, &Scheme),
        task: &'a Task,
    ) -> Result<Work<'a, T, Floats<C>>, QuantError> {
        let (_, spec) = self.coding(scheme)?;
        let slice = if self.scaled { T::BITS } else { 0 };
        let bits = Bits { element: self.float.bits(), slice, tensor: 0 };
        Ok(Work { prepared, table, grid: Floats::new(spec, scheme.nan), bits, task })
    }

    /// The scale of each slice.
    fn affines<T: Real>(
        &self,
        prepared: &Prepared<'_, T>,
        scheme: &Scheme,
        task: &Task,
    ) -> Result<Vec<QuantParams<T>>, QuantError> {
        prepared.check_nan(scheme.nan)?;
        let (profile, spec) = self.coding(scheme)?;
        let of = |scale| QuantParams { scale, zero_point: 0 };
        let slices = (0..prepared.partition.slices()).into_par_iter();
        if !self.scaled {
            return Ok(slices.map(|_| of(T::ONE)).collect());
        }
        let clipped = |abs_max: T| of(self.scale(abs_max, profile));
        match &scheme.range {
            RangeMethod::Given { scale, .. } => {
                prepared.check_count("scale", scale.len())?;
                slices.with_min_len(PART).map(|i| prepared.given_scale(scale, i).map(of)).collect()
            }
            RangeMethod::Explicit { min, max } => {
                let ends = prepared.given_ends([min, max])?;
                let scale = |slice| {
                    let [min, max] = ends(slice)?;
                    Ok(clipped(Range::around_zero(min, max).abs_max()))
                };
                slices.with_min_len(PART).map(scale).collect()
            }
            RangeMethod::Percentile(p) => {
                let find = |slice| {
                    let values = prepared.x.slice(&prepared.partition, slice);
                    let extent = prepared.extents[slice];
                    let range = range::percentile::range(&values, extent, *p, true, task);
                    clipped(range.abs_max())
                };
                Ok(slices.map(find).collect())
            }
            RangeMethod::Mse => {
                let find = |slice| self.least(prepared, slice, (profile, spec), task);
                Ok(slices.map(find).map(of).collect())
            }
            RangeMethod::MinMax
            | RangeMethod::EntropyOrt
            | RangeMethod::EntropyTensorrt
            | RangeMethod::EntropyModelopt
            | RangeMethod::CrossEntropy { .. } => {
                let scale = |i: usize| {
                    let extent = &prepared.extents[i];
                    clipped(Range::around_zero(extent.min, extent.max).abs_max())
                };
                Ok(slices.with_min_len(PART).map(scale).collect())
            }
        }
    }

    /// The scale of least squared error: of those of 1 to [`CANDIDATES`] hundredths of the largest magnitude; of equal
    /// errors the larger one.
    fn least<T: Real>(
        &self,
        prepared: &Prepared<'_, T>,
        slice: usize,
        (profile, spec): (Profile, FloatSpec),
        task: &Task,
    ) -> T {
        let extent = prepared.extents[slice];
        let abs_max = Range::around_zero(extent.min, extent.max).abs_max();
        let whole = self.scale(abs_max, profile);
        let values = prepared.x.slice(&prepared.partition, slice);
        let candidate = |i: i32| {
            let part = f64::from(i) / f64::from(CANDIDATES);
            self.scale(T::from_f64(abs_max.to_f64() * part), profile)
        };
        let error = |scale: T, bound: f64| {
            let params = Params::Same(QuantParams { scale, zero_point: 0 });
            let error = |block: &[T]| {
                let mut lanes = LaneSums::default();
                task.isa().measure_floats(block, params, spec, &mut lanes);
                lanes.total().error()
            };
            range::mse::bounded_sum(&values, bound, error, task)
        };
        let (mut best, mut least) = (whole, error(whole, f64::INFINITY));
        for scale in (1..CANDIDATES).rev().map(candidate) {
            if task.is_cancelled() {
                break;
            }
            // The smallest scale of a profile may be that of several.
            if scale == best {
                continue;
            }
            let sum = error(scale, least);
            if sum < least {
                (best, least) = (scale, sum);
            }
        }
        best
    }

    fn measure_slices<T: Real>(
        &self,
        prepared: &Prepared<'_, T>,
        scheme: &Scheme,
        task: &Task,
    ) -> Result<Report, QuantError> {
        let table = Table::new(&self.affines(prepared, scheme, task)?);
        // Of which type they would be does not matter.
        let work = self.work::<T, u16>(prepared, (&table, scheme), task)?;
        Ok(work.report(&work.measure()))
    }

    fn quantize_slices<T: Real>(
        &self,
        prepared: &Prepared<'_, T>,
        scheme: &Scheme,
        per_slice: bool,
        task: &Task,
    ) -> Result<Quantized, QuantError> {
        let table = Table::new(&self.affines(prepared, scheme, task)?);
        let work = (&table, scheme);
        let (codes, report, slices) = match self.dtype.size() {
            1 => self.work::<T, u8>(prepared, work, task)?.quantized(None, per_slice),
            _ => self.work::<T, u16>(prepared, work, task)?.quantized(None, per_slice),
        };
        let shape = |dims: &[usize]| Shape::new(dims.to_vec()).ok();
        let parts = (|| {
            let codes = Tensor::view(self.dtype, shape(prepared.dims)?, Arc::new(codes), 0)?;
            let mut parts = Parts::from_iter([(CODES, codes)]);
            if self.scaled {
                let dtype = if T::BITS == 64 { DType::F64 } else { DType::F32 };
                let dims = shape(prepared.partition.scale_dims())?;
                parts.push(SCALE, Tensor::from_elements(dtype, dims, table.scales())?);
            }
            Some(parts)
        })();
        let parts = parts.ok_or_else(|| QuantError::field("data", "the result is too large"))?;
        Ok(Quantized { parts, report, slices })
    }

    /// The codes and their partition, checked.
    fn codes<'a>(&self, coded: &'a Coded) -> Result<(&'a Tensor, Shape, Partition), QuantError> {
        let codes = coded.part(CODES)?;
        let dtype = codes.dtype();
        if dtype != self.dtype && dtype != self.dtype.patterns() {
            let detail = format!("{dtype} codes of format {}", self.name);
            return Err(QuantError::field(CODES, detail).cure(format!(
                "send {} or {}",
                self.dtype,
                self.dtype.patterns()
            )));
        }
        let shape = coded.shape.as_ref().unwrap_or(codes.shape());
        if shape.len() != codes.shape().len() {
            return Err(QuantError::field("shape", "another number of codes than the shape has"));
        }
        if !self.scaled {
            return Ok((codes, shape.clone(), Partition::new(Granularity::Tensor, shape)?));
        }
        let partition = Partition::new(granularity(coded, &[SCALE], shape)?, shape)?;
        slices::check_count(SCALE, coded.part(SCALE)?.shape().len(), partition.slices())?;
        Ok((codes, shape.clone(), partition))
    }

    fn restored<T: Restored, C: Code>(
        &self,
        codes: &Tensor,
        (partition, scale): (&Partition, &[T]),
        dtype: DType,
        task: &Task,
    ) -> Result<Buffer, QuantError> {
        let scales = scales(scale, partition.slices())?.into_iter();
        let affines: Vec<_> = scales.map(|scale| QuantParams { scale, zero_point: 0 }).collect();
        let (stored, table) = (Stored::Plain(codes.elements::<C>()), Table::new(&affines));
        let decode = |isa: Isa, codes: &[C], params: Params<'_, T>, stores, x: &mut [T]| {
            isa.dequantize_floats(codes, params, self.float, stores, x);
        };
        Ok(to_dtype::<T>(restore(&stored, (&table, partition), decode, task), dtype))
    }
}

impl Format for Float {
    fn name(&self) -> &'static str {
        self.name
    }

    fn summary(&self) -> &'static str {
        self.summary
    }

    fn resolve(&'static self, options: &Options) -> Result<Scheme, QuantError> {
        let taken: &[&str] = if self.scaled { &TAKEN } else { &UNSCALED };
        options.refuse(self, |field| taken.contains(&field))?;
        let profile = options.profile.unwrap_or(Profile::CompressedTensors);
        if matches!(profile, Profile::Tflite | Profile::Modelopt) {
            let detail = format!("{} has no floats of its own kind", profile.name());
            return Err(
                QuantError::field("profile", detail).cure("use compressed-tensors, torch or onnx")
            );
        }
        let range = self.range(options)?;
        let granularity = options.granularity(&range)?;
        for (field, is_usual) in [
            ("granularity", granularity == Granularity::Tensor),
            ("range", range == RangeMethod::MinMax),
        ] {
            if !self.scaled && !is_usual {
                let detail = format!("format {} has no scales", self.name);
                return Err(QuantError::field(field, detail).cure(format!("leave {field} out")));
            }
        }
        let saturate = options.saturate.unwrap_or(self.scaled);
        Ok(Scheme {
            format: self,
            coding: Coding::Float { profile, saturate },
            granularity,
            range,
            nan: options.nan.unwrap_or(NanPolicy::Keep),
            packed: false,
        })
    }

    fn plan(&self, scheme: &Scheme, shape: &Shape, dtype: DType) -> Result<Plan, QuantError> {
        let partition = Partition::new(scheme.granularity, shape)?;
        let (elements, slices) = (shape.len(), partition.slices());
        let part = |name, dtype, dims: &[usize]| PartShape { name, dtype, dims: dims.to_vec() };
        let mut parts = vec![part(CODES, self.dtype, shape.dims())];
        if self.scaled {
            parts.push(part(SCALE, scale_dtype(dtype), partition.scale_dims()));
        }
        Ok(Plan {
            parts,
            slices,
            working_bytes: slices::working_bytes([elements, slices], dtype, &scheme.range),
            cost: cost::quantize([elements, slices], scheme),
        })
    }

    fn types(&self, _: &Options) -> Vec<PartType> {
        let codes = PartType {
            name: CODES,
            dtype: self.dtype,
            types: &DType::ALL,
            required: true,
            elementwise: true,
        };
        let scale = PartType {
            name: SCALE,
            dtype: DType::F32,
            types: &[DType::F32, DType::F64],
            required: true,
            elementwise: false,
        };
        if self.scaled { vec![codes, scale] } else { vec![codes] }
    }

    fn quantize(
        &self,
        tensor: &Tensor,
        scheme: &Scheme,
        per_slice: bool,
        task: &Task,
    ) -> Result<Quantized, QuantError> {
        match &Sources::of(tensor, task.isa()) {
            Sources::F32(x) => {
                let prepared = Prepared::new(x, tensor, scheme.granularity, task)?;
                self.quantize_slices(&prepared, scheme, per_slice, task)
            }
            Sources::F64(x) => {
                let prepared = Prepared::new(x, tensor, scheme.granularity, task)?;
                self.quantize_slices(&prepared, scheme, per_slice, task)
            }
        }
    }

    fn measure(
        &self,
        tensor: &Tensor,
        schemes: &[&Scheme],
        task: &Task,
    ) -> Result<Vec<Report>, (usize, QuantError)> {
        match &Sources::of(tensor, task.isa()) {
            Sources::F32(x) => {
                let report =
                    |x: &Prepared<'_, f32>, scheme: &Scheme| self.measure_slices(x, scheme, task);
                slices::measure(x, tensor, schemes, report, task)
            }
            Sources::F64(x) => {
                let report =
                    |x: &Prepared<'_, f64>, scheme: &Scheme| self.measure_slices(x, scheme, task);
                slices::measure(x, tensor, schemes, report, task)
            }
        }
    }

    fn restoring(&self, coded: &Coded, dtype: Option<DType>) -> Result<Restoring, QuantError> {
        let (_, shape, partition) = self.codes(coded)?;
        let scale = if self.scaled { coded.part(SCALE)?.dtype() } else { DType::F32 };
        let dtype = dtype.unwrap_or(scale_dtype(scale));
        let (elements, slices) = (shape.len(), partition.slices());
        Ok(Restoring {
            elements,
            dtype,
            working_bytes: slices::restoring_bytes([elements, slices], scale, dtype),
            cost: cost::dequantize(elements, slices),
        })
    }

    fn dequantize(&self, coded: &Coded, dtype: DType, task: &Task) -> Result<Tensor, QuantError> {
        let (codes, shape, partition) = self.codes(coded)?;
        let scale = if self.scaled { Some(coded.part(SCALE)?) } else { None };
        if scale.is_some_and(|scale| !scale.dtype().is_float()) {
            return Err(
                QuantError::field(SCALE, "not a floating-point type").cure("send F32 or F64")
            );
        }
        let restored = match (scale.map(Tensor::reals), codes.dtype().size()) {
            (Some(Reals::F64(scale)), 1) => {
                self.restored::<f64, u8>(codes, (&partition, &scale), dtype, task)
            }
            (Some(Reals::F32(scale)), 1) => {
                self.restored::<f32, u8>(codes, (&partition, &scale), dtype, task)
            }
            _ => self.restored::<f32, u16>(codes, (&partition, &[1.0]), dtype, task),
        }?;
        Tensor::view(dtype, shape, Arc::new(restored), 0)
            .ok_or_else(|| QuantError::field("output_dtype", "not a floating-point type"))
    }
}
