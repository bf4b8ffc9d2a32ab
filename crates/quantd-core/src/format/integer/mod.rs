//! Integers of 2 to 8, or 16 bits: a scale and a zero point for each slice, `(code - zero_point) * scale`.

mod coded;
mod codes;
mod dequantize;
mod grid;
mod quantize;

use crate::params::{Numerics, Profile};
use crate::partition::Partition;
use crate::report::Report;
use crate::scheme::{Coding, NanPolicy, Options, Scheme, scale_dtype};
use crate::source::Sources;
use crate::tensor::{DType, Shape, Tensor};
use crate::{QuantError, Task, cost};

use super::{
    CODES, Coded, Format, PartShape, PartType, Parts, Plan, Quantized, Restoring, SCALE, pack,
    slices,
};

pub use coded::{Unpacked, unpacked, unpacking_bytes};
pub use codes::Stated;
pub(crate) use codes::first_outside;
pub use dequantize::{Codes, dequantize};
pub(super) use grid::Integers;
pub use quantize::{Encoded, encode};

/// The part of zero points.
pub const ZERO_POINT: &str = "zero_point";

/// What slices have one of each.
const PARAMETERS: [&str; 2] = [SCALE, ZERO_POINT];

/// Integers.
#[derive(Clone, Copy, Debug)]
pub struct Integer;

/// Integers.
pub static INTEGER: Integer = Integer;

impl Format for Integer {
    fn name(&self) -> &'static str {
        "int"
    }

    fn summary(&self) -> &'static str {
        "integers of 2 to 8, or 16 bits, with a scale and a zero point"
    }

    fn is_integer(&self) -> bool {
        true
    }

    fn resolve(&'static self, options: &Options) -> Result<Scheme, QuantError> {
        let numerics = numerics(options)?;
        options.refuse(self, |field| !["saturate", "scale_rounding"].contains(&field))?;
        if options.nan == Some(NanPolicy::Keep) {
            return Err(QuantError::field("nan", "integers have no NaN")
                .cure("use refuse, zero, min or max"));
        }
        let range = options.range(Some(&numerics))?;
        Ok(Scheme {
            format: self,
            coding: Coding::Integer(numerics),
            granularity: options.granularity(&range)?,
            range,
            nan: options.nan.unwrap_or(NanPolicy::Refuse),
            packed: options.packing(numerics.bits),
        })
    }

    fn plan(&self, scheme: &Scheme, shape: &Shape, dtype: DType) -> Result<Plan, QuantError> {
        let partition = Partition::new(scheme.granularity, shape)?;
        let numerics = scheme.integers("codes")?;
        let code = numerics.code_type().dtype();
        let codes = match scheme.packed {
            true => {
                let len = pack::packed_len(shape.len(), numerics.bits);
                (DType::U8, vec![len.ok_or_else(|| QuantError::field("data", "too many codes"))?])
            }
            false => (code, shape.dims().to_vec()),
        };
        let part = |name, (dtype, dims)| PartShape { name, dtype, dims };
        let (elements, slices) = (shape.len(), partition.slices());
        Ok(Plan {
            parts: vec![
                part(CODES, codes),
                part(SCALE, (scale_dtype(dtype), partition.scale_dims().to_vec())),
                part(ZERO_POINT, (code, partition.scale_dims().to_vec())),
            ],
            slices,
            working_bytes: slices::working_bytes([elements, slices], dtype, &scheme.range),
            cost: cost::quantize([elements, slices], scheme),
        })
    }

    fn types(&self, options: &Options) -> Vec<PartType> {
        let part = |name, dtype, types| PartType {
            name,
            dtype,
            types,
            required: name != ZERO_POINT,
            elementwise: name == CODES && !coded::is_packed(options),
        };
        vec![
            part(CODES, coded::dtype(options), &DType::ALL),
            part(SCALE, DType::F32, &[DType::F32, DType::F64]),
            part(ZERO_POINT, DType::I32, &[]),
        ]
    }

    fn quantize(
        &self,
        tensor: &Tensor,
        scheme: &Scheme,
        per_slice: bool,
        task: &Task,
    ) -> Result<Quantized, QuantError> {
        let (Encoded { codes, scale, zero_point }, report, slices) =
            quantize::quantize(tensor, scheme, per_slice, task)?;
        let parts = [(CODES, codes), (SCALE, scale), (ZERO_POINT, zero_point)];
        Ok(Quantized { parts: Parts::from_iter(parts), report, slices })
    }

    fn measure(
        &self,
        tensor: &Tensor,
        schemes: &[&Scheme],
        task: &Task,
    ) -> Result<Vec<Report>, (usize, QuantError)> {
        match &Sources::of(tensor, task.isa()) {
            Sources::F32(x) => slices::measure(
                x,
                tensor,
                schemes,
                |x, scheme| quantize::measure(x, scheme, task),
                task,
            ),
            Sources::F64(x) => slices::measure(
                x,
                tensor,
                schemes,
                |x, scheme| quantize::measure(x, scheme, task),
                task,
            ),
        }
    }

    fn restoring(&self, coded: &Coded, dtype: Option<DType>) -> Result<Restoring, QuantError> {
        let scale = coded.part(SCALE)?;
        let dtype = dtype.unwrap_or(scale_dtype(scale.dtype()));
        let shape = coded::shape(coded)?;
        let granularity = slices::granularity(coded, &PARAMETERS, shape)?;
        let slices = Partition::new(granularity, shape)?.slices();
        slices::check_count(SCALE, scale.shape().len(), slices)?;
        let working = dequantize::working_bytes(shape, granularity, scale.dtype(), dtype)?;
        Ok(Restoring {
            elements: shape.len(),
            dtype,
            working_bytes: working.saturating_add(coded::unpacking_bytes(coded)),
            cost: cost::dequantize(shape.len(), scale.shape().len()),
        })
    }

    fn dequantize(&self, coded: &Coded, dtype: DType, task: &Task) -> Result<Tensor, QuantError> {
        let unpacked = unpacked(coded)?;
        let granularity = slices::granularity(coded, &PARAMETERS, unpacked.codes.shape())?;
        let scale = coded.part(SCALE)?;
        let Unpacked { codes, zero_point, stated, .. } = &unpacked;
        let zero_point = zero_point.as_ref();
        let codes = Codes { codes, scale, zero_point, granularity, stated: *stated };
        dequantize(&codes, dtype, task)
    }
}

/// Codes and formulas of options.
fn numerics(options: &Options) -> Result<Numerics, QuantError> {
    let profile = options.profile.unwrap_or(Profile::Onnx);
    if profile == Profile::Modelopt {
        return Err(QuantError::field("profile", "integers have no formulas of modelopt")
            .cure("use onnx, torch, compressed-tensors or tflite"));
    }
    let bits = options.bits.unwrap_or(8);
    let signed = options.signed.unwrap_or(true);
    if profile == Profile::CompressedTensors && !signed {
        return Err(QuantError::field("signed", "compressed-tensors has signed codes only")
            .cure("leave signed out"));
    }
    let given = options.scale.is_some();
    let centred = if given { is_centred(options, bits, signed) } else { signed };
    let symmetric = options.symmetric.unwrap_or(centred);
    let restricted = options.restricted.unwrap_or(
        signed
            && symmetric
            && profile.restricted_by_default()
            // `QuantizeLinear` with a given scale saturates to the full range.
            && (!given || options.symmetric == Some(true)),
    );
    if restricted && !(signed && symmetric) {
        return Err(QuantError::field(
            "restricted",
            "only signed symmetric codes can be restricted",
        )
        .cure("leave restricted out, or set signed and symmetric"));
    }
    Ok(Numerics { profile, bits, signed, symmetric, restricted })
}

/// Whether all given zero points are those of symmetric codes.
fn is_centred(options: &Options, bits: u32, signed: bool) -> bool {
    let middle = if signed { 0 } else { 1_i64 << (bits - 1) };
    match &options.zero_point {
        Some(zero_point) => zero_point.iter().all(|&z| z == middle),
        None => signed,
    }
}
