//! The options of a product.

use crate::api::fields::field::{
    Component, Flag, Integer, Member, Real, Table, Types, Words, fields, named,
};
use crate::api::schemas;
use quantd_core::matmul::Requantization;
use quantd_core::tensor::DType;

/// Types of products.
pub const PRODUCTS: [DType; 4] = [DType::I32, DType::F32, DType::U8, DType::I8];

fields! {
    pub(super) TRANSPOSE_B: "transpose_b", Flag = Flag,
        "Whether B is `[.., n, k]`, as weights of linear layers are stored.";
    pub(super) OUTPUT_DTYPE: "output_dtype", Types = Types { types: &PRODUCTS, component: Component::of::<schemas::ProductDtype>() },
        "What the product is: sums (I32), real numbers (F32), or codes. Default F32, or I32 without scales.";
    pub(super) OUTPUT_SCALE: "output_scale", Real = Real { min: 0.0, max: f32::MAX as f64 },
        "Scale of the codes of the product.";
    pub(super) OUTPUT_ZERO_POINT: "output_zero_point", Integer = Integer { min: -128, max: 255, bounded: true },
        "Zero point of the codes of the product. Default 0.";
    pub(super) REQUANTIZE: "requantize", Words<Requantization> = Words::of::<schemas::RequantizeName>(),
        "Whose definition of requantization. Default `float_ort`.";
    pub(super) RELU: "relu", Flag = Flag,
        "Whether negative results become 0.";
    pub(super) REPORT: "report", Flag = Flag,
        "Whether to compare with the product of the real numbers.";
}
/// Options beside the operands.
pub const OPTIONS: Table =
    &[&TRANSPOSE_B, &OUTPUT_DTYPE, &OUTPUT_SCALE, &OUTPUT_ZERO_POINT, &REQUANTIZE, &RELU, &REPORT];
/// Members of JSON.
pub const MEMBERS: Table = &[
    &Member {
        name: "a",
        summary: "`[.., m, k]`. Granularity tensor or token.",
        form: named::<schemas::OperandBody>,
    },
    &Member {
        name: "b",
        summary: "`[.., k, n]`. Granularity tensor, channel along n, or group along k.",
        form: named::<schemas::OperandBody>,
    },
    &Member {
        name: "bias",
        summary: "One a column: real numbers, or integers in units of the sums for codes.",
        form: named::<schemas::NumbersOrTensor>,
    },
];
/// Schemes of real operands in a query; their fields as `a_scheme.bits=4`.
pub const OPERANDS: Table = &[
    &Member {
        name: "a_scheme",
        summary: "How `a` is quantized where it is real; fields of a scheme as `a_scheme.bits=4`. Default: uint8, \
             one scale.",
        form: named::<schemas::PresetName>,
    },
    &Member {
        name: "b_scheme",
        summary: "How `b` is quantized where it is real; fields of a scheme as `b_scheme.bits=4`. Default: int8, \
             one scale a column.",
        form: named::<schemas::PresetName>,
    },
];
