//! The options of a layer.

use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};

use crate::api::error::Error;
use crate::api::fields::Fields;
use crate::api::fields::field::{
    Component, Field, Flag, Form, Integer, Kind, Member, Real, Table, Words, named,
};
use crate::api::name::PATTERN;
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

/// Name of the layer.
pub const NAME: Member = Member {
    name: "name",
    summary: "Name of the layer; may stand in the path instead.",
    form: || {
        let name = ObjectBuilder::new().schema_type(Type::String);
        Form::Scalar(name.pattern(Some(PATTERN)).build())
    },
};
/// What it is.
pub const KIND: Field<Words<LayerKind>> = Field {
    name: "kind",
    summary: "What it is. Default linear.",
    kind: Words::of::<schemas::LayerKind>(),
};
/// How the weight is quantized.
const SCHEME: Member = Member {
    name: "scheme",
    summary: "How the weight is quantized; fields of a scheme as `scheme.bits=4`.",
    form: named::<schemas::PresetName>,
};
/// Order of the weight.
pub const TRANSPOSE: Field<Flag> = Field {
    name: "transpose",
    summary: "Whether the weight of a linear layer is `[inputs, outputs]`.",
    kind: Flag,
};
/// How the input becomes codes.
const INPUT: Member = Member {
    name: "input",
    summary: "How the input becomes codes: granularity tensor (all rows together) or token (each row, each image), or \
              static with scale and `zero_point`, min and max, or a calibrator; in a query fields as \
              `input.scale=0.1`. Default, and for `{}`: uint8, a scale and zero point for each row.",
    form: || {
        let (json, query) =
            (Component::of::<schemas::Coding>(), Component::of::<schemas::PresetName>());
        Form::Either(json, query)
    },
};
/// What is applied to the result.
pub const ACTIVATION: Field<Words<Activation>> = Field {
    name: "activation",
    summary: "What is applied to the result. Default none.",
    kind: Words::of::<schemas::ActivationName>(),
};
/// Step of a kernel.
pub const STRIDE: Field<Steps<2>> =
    Field { name: "stride", summary: "Step of a kernel. Default 1.", kind: Steps };
/// Pixels around an image.
pub const PADDING: Field<Steps<4>> = Field {
    name: "padding",
    summary: "Pixels of value 0 around an image. Default 0.",
    kind: Steps,
};
/// Step within a kernel.
pub const DILATION: Field<Steps<2>> = Field {
    name: "dilation",
    summary: "Step between the elements of a kernel. Default 1.",
    kind: Steps,
};
/// Parts of the channels.
pub const GROUPS: Field<Integer> = Field {
    name: "groups",
    summary: "Parts of the channels that do not see one another. Default 1.",
    kind: Integer { min: 1, max: 1 << 31, bounded: false },
};
/// Whether the real weights are kept.
pub const KEEP_FLOAT: Field<Flag> = Field {
    name: "keep_float",
    summary: "Keep the real weights, which evaluate compares with. Default true.",
    kind: Flag,
};
/// Names of a chain.
const CHAIN: Member = Member {
    name: "chain",
    summary: "Names of layers that follow one another, instead of a weight.",
    form: || {
        let name = ObjectBuilder::new().schema_type(Type::String);
        let names = ArrayBuilder::new().items(name).min_items(Some(1)).max_items(Some(MAX_LINKS));
        Form::List(names.build())
    },
};
/// The weight.
const WEIGHT: Member = Member {
    name: "weight",
    summary: "`[outputs, inputs]`, or `[outputs, inputs / groups, height, width]`. Default scheme: int8; one scale an \
              output wherever no granularity is named.",
    form: named::<schemas::OperandBody>,
};
/// The bias.
const BIAS: Member =
    Member { name: "bias", summary: "One an output.", form: named::<schemas::NumbersOrTensor> };
/// What the result is.
const OUTPUT: Member = Member {
    name: "output",
    summary: "Codes of that scale, or F32 (default).",
    form: named::<schemas::Coding>,
};
/// Scale of the result in a query.
const OUTPUT_SCALE: Field<Real> = Field {
    name: "output.scale",
    summary: "Scale of codes of the result.",
    kind: Real { min: f64::MIN, max: f64::MAX },
};
/// Zero point of the result in a query.
const OUTPUT_ZERO_POINT: Field<Integer> = Field {
    name: "output.zero_point",
    summary: "Zero point of codes of the result.",
    kind: Integer { min: -128, max: 255, bounded: true },
};

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
