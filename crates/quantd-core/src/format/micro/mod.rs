//! Blocks of floats of few bits: MX, whose scales are powers of two, and NVFP4.
//!
//! An element is `code * scale of its block`, blocks lying along an axis that they divide.

mod element;
mod exponent;
mod restore;
mod two_level;

use std::sync::Arc;

use rayon::prelude::*;

use crate::format::float::{Floats, saturating};
use crate::params::{Profile, Range};
use crate::partition::{Partition, resolve_axis};
use crate::report::Report;
use crate::scheme::{
    Coding, Granularity, GranularityName, NanPolicy, Options, RangeMethod, ScaleRounding, Scheme,
};
use crate::source::Sources;
use crate::tensor::{Buffer, DType, Shape, Tensor};
use crate::{QuantError, Task, cost};
use quantd_kernels::eighths::F8E8M0;
use quantd_kernels::minifloat::{FloatSpec, MiniFloat};
use quantd_kernels::real::Real;
use quantd_kernels::scalar::{CodeRange, Extent, Params, Rounding};
use quantd_kernels::table::Table;
use quantd_kernels::{CodeSpec, Isa, Stores, ToF32};

use super::integer::Integers;
use super::pack::Packing;
use super::slices::{self, Bits, Grid, Prepared, Work, to_dtype};
use super::{CODES, Coded, Format, PartShape, PartType, Parts, Plan, Quantized, Restoring, SCALE};

use element::Element;
use two_level::{Factors, TwoLevel};

/// The part of the scale of the tensor.
const GLOBAL_SCALE: &str = "global_scale";

/// Blocks of one kind.
#[derive(Debug)]
pub(super) struct Micro {
    name: &'static str,
    summary: &'static str,
    element: Element,
    /// Type of codes that are not packed.
    dtype: DType,
    /// Elements of a block.
    block: usize,
}

/// Rows of the table of formats.
macro_rules! rows {
    ($($(#[$doc:meta])* $row:ident: $name:literal, $summary:literal, $element:expr, $dtype:ident, $block:literal;)*) => {$(
        $(#[$doc])*
        pub(super) static $row: Micro = Micro {
            name: $name,
            summary: $summary,
            element: $element,
            dtype: DType::$dtype,
            block: $block,
        };
    )*};
}

rows! {
    /// E4M3 under powers of two.
    MXFP8_E4M3: "mxfp8_e4m3", "blocks of 32 fp8_e4m3 with a power of two as scale",
        Element::Float(MiniFloat::E4M3), F8E4M3, 32;
    /// E5M2 under powers of two.
    MXFP8_E5M2: "mxfp8_e5m2", "blocks of 32 fp8_e5m2 with a power of two as scale",
        Element::Float(MiniFloat::E5M2), F8E5M2, 32;
    /// E2M3 under powers of two.
    MXFP6_E2M3: "mxfp6_e2m3", "blocks of 32 floats of 6 bits, 3 of them mantissa, with a power of two as scale",
        Element::Float(MiniFloat::E2M3), U8, 32;
    /// E3M2 under powers of two.
    MXFP6_E3M2: "mxfp6_e3m2", "blocks of 32 floats of 6 bits, 2 of them mantissa, with a power of two as scale",
        Element::Float(MiniFloat::E3M2), U8, 32;
    /// E2M1 under powers of two.
    MXFP4: "mxfp4", "blocks of 32 floats of 4 bits with a power of two as scale",
        Element::Float(MiniFloat::E2M1), U8, 32;
    /// Integers under powers of two.
    MXINT8: "mxint8", "blocks of 32 integers of 8 bits with a power of two as scale",
        Element::Int8, I8, 32;
    /// E2M1 under E4M3 under F32.
    NVFP4: "nvfp4", "blocks of 16 floats of 4 bits with fp8_e4m3 as scale, under one scale of the tensor",
        Element::Float(MiniFloat::E2M1), U8, 16;
}

/// Elements of a block whose scales are powers of two; others have two levels.
const POWER_OF_TWO: usize = 32;

/// What to do with a shape that blocks do not fit.
const ANY_SHAPE: &str =
    "choose another axis, or a format that takes any shape: int, fp8_e4m3, fp8_e5m2, f16 or bf16";

/// Fields of a scheme that blocks have.
const TAKEN: [&str; 8] =
    ["axis", "group_size", "granularity", "range", "profile", "nan", "packed", "scale_rounding"];

/// The scales of a tensor as they are stored, and as they are computed with.
struct Scales<T> {
    patterns: Vec<u8>,
    global: Option<f32>,
    table: Table<T>,
}

impl Micro {
    const fn has_two_levels(&self) -> bool {
        self.block != POWER_OF_TWO
    }

    const fn scale_dtype(&self) -> DType {
        if self.has_two_levels() { DType::F8E4M3 } else { DType::F8E8M0 }
    }

    /// How codes lie, where they are narrower than a byte and to be packed.
    fn packing(&self, packed: bool) -> Option<Packing> {
        (packed && self.element.bits() < 8).then(|| Packing::new(self.element.bits()))
    }

    fn coding(&self, options: &Options) -> Result<Coding, QuantError> {
        let profile = options.profile.unwrap_or(Profile::CompressedTensors);
        let (known, cure): (&[Profile], _) = if self.has_two_levels() {
            let known = &[Profile::CompressedTensors, Profile::Modelopt, Profile::Torch];
            (known, "use compressed-tensors, modelopt or torch")
        } else {
            (&[Profile::CompressedTensors, Profile::Torch], "use compressed-tensors or torch")
        };
        if !known.contains(&profile) {
            let detail = format!("not one that format {} has", self.name);
            return Err(QuantError::field("profile", detail).cure(cure));
        }
        if self.has_two_levels() {
            if options.scale_rounding.is_some() {
                let detail = format!("scales of format {} are no powers of two", self.name);
                return Err(
                    QuantError::field("scale_rounding", detail).cure("leave scale_rounding out")
                );
            }
            return Ok(Coding::TwoLevel { profile });
        }
        let rounding = options.scale_rounding.unwrap_or(ScaleRounding::Floor);
        Ok(Coding::Microscaling { profile, rounding })
    }

    /// The axis of the blocks.
    fn granularity(&self, options: &Options) -> Result<Granularity, QuantError> {
        if options.granularity.is_some_and(|name| name != GranularityName::Group) {
            let detail = format!("format {} has blocks along an axis", self.name);
            return Err(QuantError::field("granularity", detail).cure("leave granularity out"));
        }
        if options.group_size.is_some_and(|size| size != self.block) {
            let detail = format!("blocks of format {} have {} elements", self.name, self.block);
            return Err(QuantError::field("group_size", detail).cure("leave group_size out"));
        }
        Ok(Granularity::Group { axis: options.axis.unwrap_or(-1), size: self.block })
    }

    /// The geometry of the blocks over a shape, which they have to divide.
    fn partition(&self, granularity: Granularity, shape: &Shape) -> Result<Partition, QuantError> {
        let Granularity::Group { axis, .. } = granularity else {
            return Err(QuantError::field("granularity", "blocks lie along an axis"));
        };
        let dims = shape.dims();
        if dims.is_empty() {
            let detail = format!("a scalar has no axis for the blocks of format {}", self.name);
            return Err(QuantError::field("shape", detail).cure(ANY_SHAPE));
        }
        let extent = dims[resolve_axis(axis, dims.len())?];
        if !extent.is_multiple_of(self.block) {
            let detail = format!(
                "axis {axis}, of {extent}, is no whole number of blocks of {} elements, which format {} has",
                self.block, self.name
            );
            return Err(QuantError::field("shape", detail).cure(ANY_SHAPE));
        }
        Partition::new(granularity, shape)
    }

    /// Type and dimensions of the codes.
    fn codes(&self, shape: &Shape, packed: bool) -> Result<(DType, Vec<usize>), QuantError> {
        let mut dims = shape.dims().to_vec();
        let Some(packing) = self.packing(packed) else { return Ok((self.dtype, dims)) };
        let bits = packing.bits() as usize;
        if let Some(last) = dims.last_mut() {
            if !(*last * bits).is_multiple_of(8) {
                let detail = format!("{last} codes of {bits} bits are no whole number of bytes");
                return Err(QuantError::field("packed", detail).cure("use packed: false"));
            }
            *last = *last / 8 * bits + *last % 8 * bits / 8;
        }
        Ok((DType::U8, dims))
    }

    /// The scales of all blocks.
    fn scales<T: Real>(
        &self,
        prepared: &Prepared<'_, T>,
        scheme: &Scheme,
    ) -> Result<Scales<T>, QuantError> {
        prepared.check_nan(scheme.nan)?;
        let extents = || prepared.extents.par_iter().with_min_len(slices::PART);
        match scheme.coding {
            Coding::Microscaling { profile, rounding } => {
                let pattern = |extent: &Extent<T>| {
                    if extent.nan > 0 && scheme.nan == NanPolicy::Keep {
                        return F8E8M0::NAN.0;
                    }
                    let abs_max = match extent.inf {
                        0 => Range::around_zero(extent.min, extent.max).abs_max().to_f64(),
                        _ => f64::INFINITY,
                    };
                    exponent::scale(abs_max, self.element, (rounding, profile)).0
                };
                let patterns: Vec<u8> = extents().map(pattern).collect();
                let table = self.powers(&patterns);
                Ok(Scales { patterns, global: None, table })
            }
            Coding::TwoLevel { profile } => {
                let abs_max = |extent: &Extent<T>| -> f32 {
                    Real::from_f64(Range::around_zero(extent.min, extent.max).abs_max().to_f64())
                };
                let largest = abs_max(&prepared.total);
                if !largest.is_finite() {
                    let detail = "numbers beyond the largest F32, which the scale of the tensor is";
                    return Err(QuantError::field("data", detail).cure("use fp8_e4m3 or f16"));
                }
                let levels = TwoLevel::of(largest, self.element, profile);
                let patterns: Vec<u8> =
                    extents().map(|extent| levels.block(abs_max(extent))).collect();
                let table = table(&patterns, |pattern| levels.factors(pattern));
                Ok(Scales { patterns, global: Some(levels.global), table })
            }
            Coding::Integer(_) | Coding::Float { .. } => {
                Err(QuantError::field("format", "another scheme than its own"))
            }
        }
    }

    /// Scales that are powers of two.
    fn powers<T: Real>(&self, patterns: &[u8]) -> Table<T> {
        let of = |pattern: u8| {
            let scale = F8E8M0(pattern).to_f32() / self.element.steps();
            Factors { scale, reciprocal: 1.0 / scale }
        };
        table(patterns, of)
    }

    /// Codes and reports, or, without codes, the report alone.
    fn made<T: Real, G: Grid<T>>(
        &self,
        work: &Work<'_, T, G>,
        scheme: &Scheme,
        (with_codes, per_slice): (bool, bool),
    ) -> (Buffer, Report, Vec<Report>) {
        if with_codes {
            return work.quantized(self.packing(scheme.packed), per_slice);
        }
        (Buffer::default(), work.report(&work.measure()), Vec::new())
    }

    /// Parts and report, or, without codes, the report alone.
    fn run<T: Real>(
        &self,
        prepared: &Prepared<'_, T>,
        scheme: &Scheme,
        (with_codes, per_slice): (bool, bool),
        task: &Task,
    ) -> Result<Quantized, QuantError> {
        let scales = self.scales(prepared, scheme)?;
        let tensor = if scales.global.is_some() { 32 } else { 0 };
        let bits = Bits { element: self.element.bits(), slice: 8, tensor };
        let table = &scales.table;
        let (codes, report, slices) = match self.element {
            Element::Float(float) => {
                // Quotients by powers of two are exact either way.
                let reciprocal = !self.has_two_levels() || scheme.profile() == Profile::Torch;
                // compressed-tensors and Model-Optimizer round a quotient of -0 to 0.
                let unsigned_zero = self.element.bits() == 4 && scheme.profile() != Profile::Torch;
                let spec = FloatSpec { reciprocal, unsigned_zero, ..saturating(float) };
                let grid = Floats::<u8>::new(spec, scheme.nan);
                let work = Work { prepared, table, grid, bits, task };
                self.made(&work, scheme, (with_codes, per_slice))
            }
            Element::Int8 => {
                let range = CodeRange { min: -127, max: 127 };
                let how = CodeSpec::new(range, Rounding::DivideEven);
                let grid = Integers::<i8>::new(how, scheme.nan);
                let work = Work { prepared, table, grid, bits, task };
                self.made(&work, scheme, (with_codes, per_slice))
            }
        };
        let parts = match with_codes {
            false => Some(Parts::default()),
            true => self.parts(codes, &scales, prepared, scheme),
        };
        let parts = parts.ok_or_else(|| QuantError::field("data", "the result is too large"))?;
        Ok(Quantized { parts, report, slices })
    }

    fn parts<T: Real>(
        &self,
        codes: Buffer,
        scales: &Scales<T>,
        prepared: &Prepared<'_, T>,
        scheme: &Scheme,
    ) -> Option<Parts> {
        let shape = Shape::new(prepared.dims.to_vec()).ok()?;
        let (dtype, dims) = self.codes(&shape, scheme.packed).ok()?;
        let codes = Tensor::view(dtype, Shape::new(dims).ok()?, Arc::new(codes), 0)?;
        let of_scales = Shape::new(prepared.partition.scale_dims().to_vec()).ok()?;
        let scale = Tensor::from_elements(self.scale_dtype(), of_scales, &scales.patterns)?;
        let mut parts = Parts::from_iter([(CODES, codes), (SCALE, scale)]);
        if let Some(global) = scales.global {
            let one = Shape::vector(1).ok()?;
            parts.push(GLOBAL_SCALE, Tensor::from_elements(DType::F32, one, &[global])?);
        }
        Some(parts)
    }

    fn is_packed(&self, options: &Options) -> bool {
        options.packed.unwrap_or(true) && self.element.bits() < 8
    }
}

/// What the elements of blocks of those scales are divided by: `of` says it of each scale that there can be.
fn table<T: Real>(patterns: &[u8], of: impl Fn(u8) -> Factors) -> Table<T> {
    let all: Vec<[T; 2]> = (0..=u8::MAX)
        .map(|pattern| {
            let Factors { scale, reciprocal } = of(pattern);
            [scale, reciprocal].map(|factor| T::from_f64(factor.into()))
        })
        .collect();
    let factors = patterns.par_iter().with_min_len(slices::PART);
    Table::of_factors(&factors.map(|&pattern| all[usize::from(pattern)]).collect::<Vec<_>>())
}

impl Format for Micro {
    fn name(&self) -> &'static str {
        self.name
    }

    fn summary(&self) -> &'static str {
        self.summary
    }

    fn resolve(&'static self, options: &Options) -> Result<Scheme, QuantError> {
        options.refuse(self, |field| TAKEN.contains(&field))?;
        let range = options.range(None)?;
        if range != RangeMethod::MinMax {
            let detail =
                format!("scales of format {} follow from the largest magnitudes", self.name);
            return Err(QuantError::field("range", detail).cure("leave range out"));
        }
        let default = if self.has_two_levels() { NanPolicy::Refuse } else { NanPolicy::Keep };
        let nan = options.nan.unwrap_or(default);
        if self.has_two_levels() && nan == NanPolicy::Keep {
            let detail = format!("format {} has no NaN", self.name);
            return Err(QuantError::field("nan", detail).cure("use refuse, zero, min or max"));
        }
        Ok(Scheme {
            format: self,
            coding: self.coding(options)?,
            granularity: self.granularity(options)?,
            range,
            nan,
            packed: self.is_packed(options),
        })
    }

    fn plan(&self, scheme: &Scheme, shape: &Shape, dtype: DType) -> Result<Plan, QuantError> {
        let partition = self.partition(scheme.granularity, shape)?;
        let (elements, slices) = (shape.len(), partition.slices());
        let (codes, dims) = self.codes(shape, scheme.packed)?;
        let part = |name, dtype, dims| PartShape { name, dtype, dims };
        let mut parts = vec![
            part(CODES, codes, dims),
            part(SCALE, self.scale_dtype(), partition.scale_dims().to_vec()),
        ];
        if self.has_two_levels() {
            parts.push(part(GLOBAL_SCALE, DType::F32, vec![1]));
        }
        Ok(Plan {
            parts,
            slices,
            working_bytes: slices::working_bytes([elements, slices], dtype, &scheme.range),
            cost: cost::quantize([elements, slices], scheme),
        })
    }

    fn types(&self, options: &Options) -> Vec<PartType> {
        const EXPONENTS: &[DType] = &[DType::F8E8M0, DType::U8];
        const FLOATS: &[DType] = &[DType::F8E4M3, DType::U8];
        let packed = self.is_packed(options);
        let part = |name, dtype, types| PartType {
            name,
            dtype,
            types,
            required: true,
            elementwise: name == CODES && !packed,
        };
        let codes = if packed { DType::U8 } else { self.dtype };
        let scales = if self.has_two_levels() { FLOATS } else { EXPONENTS };
        let mut parts =
            vec![part(CODES, codes, &DType::ALL[..]), part(SCALE, self.scale_dtype(), scales)];
        if self.has_two_levels() {
            parts.push(part(GLOBAL_SCALE, DType::F32, &[DType::F32]));
        }
        parts
    }

    fn quantize(
        &self,
        tensor: &Tensor,
        scheme: &Scheme,
        per_slice: bool,
        task: &Task,
    ) -> Result<Quantized, QuantError> {
        self.partition(scheme.granularity, tensor.shape())?;
        match &Sources::of(tensor, task.isa()) {
            Sources::F32(x) => {
                let prepared = Prepared::new(x, tensor, scheme.granularity, task)?;
                self.run(&prepared, scheme, (true, per_slice), task)
            }
            Sources::F64(x) => {
                let prepared = Prepared::new(x, tensor, scheme.granularity, task)?;
                self.run(&prepared, scheme, (true, per_slice), task)
            }
        }
    }

    fn measure(
        &self,
        tensor: &Tensor,
        schemes: &[&Scheme],
        task: &Task,
    ) -> Result<Vec<Report>, (usize, QuantError)> {
        for (i, scheme) in schemes.iter().enumerate() {
            self.partition(scheme.granularity, tensor.shape()).map_err(|error| (i, error))?;
        }
        match &Sources::of(tensor, task.isa()) {
            Sources::F32(x) => {
                let report = |x: &Prepared<'_, f32>, scheme: &Scheme| {
                    self.run(x, scheme, (false, false), task).map(|made| made.report)
                };
                slices::measure(x, tensor, schemes, report, task)
            }
            Sources::F64(x) => {
                let report = |x: &Prepared<'_, f64>, scheme: &Scheme| {
                    self.run(x, scheme, (false, false), task).map(|made| made.report)
                };
                slices::measure(x, tensor, schemes, report, task)
            }
        }
    }

    fn restoring(&self, coded: &Coded, dtype: Option<DType>) -> Result<Restoring, QuantError> {
        let (_, shape, partition) = self.stored(coded)?;
        let dtype = dtype.unwrap_or(DType::F32);
        let (elements, slices) = (shape.len(), partition.slices());
        Ok(Restoring {
            elements,
            dtype,
            working_bytes: slices::restoring_bytes([elements, slices], DType::F32, dtype),
            cost: cost::dequantize(elements, slices),
        })
    }

    fn dequantize(&self, coded: &Coded, dtype: DType, task: &Task) -> Result<Tensor, QuantError> {
        let (stored, shape, partition) = self.stored(coded)?;
        let table = self.table::<f32>(coded, &partition)?;
        let decode =
            |isa: Isa, codes: &[u8], params: Params<'_, f32>, stores: Stores, x: &mut [f32]| {
                match self.element {
                    Element::Float(float) => isa.dequantize_floats(codes, params, float, stores, x),
                    Element::Int8 => {
                        isa.dequantize(bytemuck::cast_slice::<u8, i8>(codes), params, stores, x);
                    }
                }
            };
        let restored = slices::restore(&stored, (&table, &partition), decode, task);
        Tensor::view(dtype, shape, Arc::new(to_dtype::<f32>(restored, dtype)), 0)
            .ok_or_else(|| QuantError::field("output_dtype", "not a floating-point type"))
    }
}
