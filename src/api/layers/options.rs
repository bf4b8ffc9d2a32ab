//! The options of a layer.

use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};

use crate::api::error::Error;
use crate::api::fields::Fields;
use crate::api::fields::field::{
    self, Component, Flag, Form, Integer, Kind, Real, Table, Words, fields, named,
};
use crate::api::schemas;
use quantd_core::layer::Activation;
use quantd_core::words;

/// Largest step or padding.
const MAX_STEP: usize = 1 << 15;
/// Layers of one chain.
pub(super) const MAX_LINKS: usize = 256;

words! {
    /// Kinds of layers.
    pub enum LayerKind {
        /// `x W^T`.
        Linear = "linear",
        /// A convolution over height and width.
        Conv2d = "conv2d",
        /// Layers that follow one another.
        Chain = "chain",
    }
}

/// Sizes of N sides: one for all, or down and across, or each.
#[derive(Clone, Copy, Debug)]
pub struct Steps<const N: usize>;

impl<const N: usize> Kind for Steps<N> {
    type Value = [usize; N];

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<[usize; N]>, Error> {
        let Some(sizes) = fields.sizes(name)? else { return Ok(None) };
        let given = match sizes.as_slice() {
            &[one] => Some([one; N]),
            &[down, across] => Some(std::array::from_fn(|i| [down, across][i % 2])),
            all => <[usize; N]>::try_from(all).ok(),
        };
        let given = given.filter(|given| given.iter().all(|&step| step <= MAX_STEP));
        given.map(Some).ok_or_else(|| {
            let count = if N == 4 { "one, two or four sizes" } else { "one or two sizes" };
            fields.error(name, format!("not {count} up to {MAX_STEP}")).cure("for instance [1, 1]")
        })
    }

    fn form(&self) -> Form {
        let int64 = SchemaFormat::KnownFormat(KnownFormat::Int64);
        let size = ObjectBuilder::new().schema_type(Type::Integer).format(Some(int64));
        let sizes = ArrayBuilder::new().items(size.minimum(Some(0))).build();
        Form::NamedList(Component::of::<schemas::Steps>(), sizes)
    }
}

fields! {
    pub NAME: "name", in JSON field::name,
        "Name of the layer; may stand in the path instead.";
    pub KIND: "kind", Words<LayerKind> = Words::of::<schemas::LayerKind>(),
        "What it is. Default linear.";
    SCHEME: "scheme", in JSON named::<schemas::PresetName>,
        "How the weight is quantized; fields of a scheme as `scheme.bits=4`.";
    pub TRANSPOSE: "transpose", Flag = Flag,
        "Whether the weight of a linear layer is `[inputs, outputs]`.";
    INPUT: "input", in JSON || {
        let (json, query) =
            (Component::of::<schemas::Coding>(), Component::of::<schemas::PresetName>());
        Form::Either(json, query)
    },
        "How the input becomes codes: granularity tensor (all rows together) or token (each row, each image), or \
         static with scale and `zero_point`, min and max, or a calibrator; in a query fields as \
         `input.scale=0.1`. Default, and for `{}`: uint8, a scale and zero point for each row.";
    pub ACTIVATION: "activation", Words<Activation> = Words::of::<schemas::ActivationName>(),
        "What is applied to the result. Default none.";
    pub STRIDE: "stride", Steps<2> = Steps,
        "Step of a kernel. Default 1.";
    pub PADDING: "padding", Steps<4> = Steps,
        "Pixels of value 0 around an image. Default 0.";
    pub DILATION: "dilation", Steps<2> = Steps,
        "Step between the elements of a kernel. Default 1.";
    pub GROUPS: "groups", Integer = Integer { min: 1, max: 1 << 31, bounded: false },
        "Parts of the channels that do not see one another. Default 1.";
    pub KEEP_FLOAT: "keep_float", Flag = Flag,
        "Keep the real weights, which evaluate compares with. Default true.";
    CHAIN: "chain", in JSON || {
        let name = ObjectBuilder::new().schema_type(Type::String);
        let names = ArrayBuilder::new().items(name).min_items(Some(1)).max_items(Some(MAX_LINKS));
        Form::List(names.build())
    },
        "Names of layers that follow one another, instead of a weight.";
    WEIGHT: "weight", in JSON named::<schemas::OperandBody>,
        "`[outputs, inputs]`, or `[outputs, inputs / groups, height, width]`. Default scheme: int8; one scale an \
         output wherever no granularity is named.";
    BIAS: "bias", in JSON named::<schemas::NumbersOrTensor>,
        "One an output.";
    OUTPUT: "output", in JSON named::<schemas::Coding>,
        "Codes of that scale, or F32 (default).";
    OUTPUT_SCALE: "output.scale", Real = Real { min: f64::MIN, max: f64::MAX },
        "Scale of codes of the result.";
    OUTPUT_ZERO_POINT: "output.zero_point", Integer = Integer { min: -128, max: 255, bounded: true },
        "Zero point of codes of the result.";
}

/// Members of a JSON request.
pub const MEMBERS: Table = &[
    &NAME,
    &KIND,
    &WEIGHT,
    &BIAS,
    &TRANSPOSE,
    &INPUT,
    &OUTPUT,
    &ACTIVATION,
    &STRIDE,
    &PADDING,
    &DILATION,
    &GROUPS,
    &KEEP_FLOAT,
    &CHAIN,
];
/// What a query may say beside type and shape.
pub const QUERY: Table = &[
    &NAME,
    &KIND,
    &SCHEME,
    &TRANSPOSE,
    &INPUT,
    &OUTPUT_SCALE,
    &OUTPUT_ZERO_POINT,
    &ACTIVATION,
    &STRIDE,
    &PADDING,
    &DILATION,
    &GROUPS,
    &KEEP_FLOAT,
];
/// All of them, once gathered.
pub(super) const OPTIONS: [Table; 2] = [MEMBERS, &[&SCHEME]];
