//! The fields of a scheme.

use quantd_core::format::Format;
use quantd_core::params::Profile;
use quantd_core::scheme::{GranularityName, NanPolicy, Options, RangeName, ScaleRounding};

use crate::api::error::Error;
use crate::api::fields::Fields;
use crate::api::fields::field::{
    Component, Flag, Form, Integer, Integers, Kind, Numbers, Real, Sizes, Table, Words, fields,
};
use crate::api::{formats, presets, schemas};

/// Largest axis or size.
const MAX_SIZE: i64 = 1 << 31;
/// One number, or one a slice.
const ONE_OR_MORE: Component = Component::of::<schemas::OneOrMore>();

/// The name of a preset, or a scheme in words.
#[derive(Clone, Copy, Debug)]
pub struct Preset;

impl Kind for Preset {
    type Value = Options;

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<Options>, Error> {
        presets::take(fields, name)
    }

    fn form(&self) -> Form {
        Form::Named(Component::of::<schemas::PresetName>())
    }
}

/// The name of a number format.
#[derive(Clone, Copy, Debug)]
pub struct FormatWord;

impl Kind for FormatWord {
    type Value = &'static dyn Format;

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<Self::Value>, Error> {
        let names: Vec<_> = formats::all().map(Format::name).collect();
        Ok(fields.one_of(name, &names)?.and_then(formats::find))
    }

    fn form(&self) -> Form {
        Form::Named(Component::of::<schemas::FormatName>())
    }
}

const fn integer(min: i64, max: i64) -> Integer {
    Integer { min, max, bounded: false }
}

fields! {
    pub PRESET: "preset", Preset = Preset,
        "A common scheme to start from; other fields override it.";
    pub SHORT: "scheme", Preset = Preset,
        "Short for `preset`.";
    pub FORMAT: "format", FormatWord = FormatWord,
        "How numbers are stored. Default int.";
    pub BITS: "bits", Integer = Integer { min: 2, max: 16, bounded: true },
        "Bits of a code: 2 to 8, or 16. Default 8.";
    pub SIGNED: "signed", Flag = Flag,
        "Two's complement codes. Default true.";
    pub SYMMETRIC: "symmetric", Flag = Flag,
        "Zero point fixed in the middle: 0, or 2^(bits-1) for unsigned codes. Default: as `signed`.";
    pub RESTRICTED: "restricted", Flag = Flag,
        "Leave out the most negative code (-127..127). Default: for signed symmetric codes of the \
         profiles `onnx` and `tflite`.";
    pub GRANULARITY: "granularity", Words<GranularityName> = Words::of::<schemas::GranularityName>(),
        "Which elements share a scale. Default: implied by `axis` (but with `range=cross_entropy`, where \
         it is that of the softmax), `group_size` or `block_shape`, else tensor.";
    pub AXIS: "axis", Integer = integer(-MAX_SIZE, MAX_SIZE),
        "Axis of channels (default 0) or groups (default -1); of the softmax for `cross_entropy` over a \
         tensor.";
    pub GROUP_SIZE: "group_size", Integer = integer(1, MAX_SIZE),
        "Elements of a group along the axis.";
    pub BLOCK_SHAPE: "block_shape", Sizes = Sizes { count: Some(2), most: None },
        "Rows and columns of a block of the last two axes.";
    pub RANGE: "range", Words<RangeName> = Words::of::<schemas::RangeName>(),
        "How the clipping range is found. Default `min_max`.";
    pub PERCENTILE: "percentile", Real = Real { min: 50.0, max: 100.0 },
        "Percentile of range percentile.";
    pub MIN: "min", Numbers = Numbers { component: ONE_OR_MORE },
        "Lower end of range explicit: one number, or one a slice.";
    pub MAX: "max", Numbers = Numbers { component: ONE_OR_MORE },
        "Upper end of range explicit: one number, or one a slice.";
    pub SCALE: "scale", Numbers = Numbers { component: ONE_OR_MORE },
        "Scale of range explicit: one number, or one a slice.";
    pub ZERO_POINT: "zero_point", Integers = Integers { component: ONE_OR_MORE },
        "Zero point beside `scale`: one integer, or one a slice.";
    pub PROFILE: "profile", Words<Profile> = Words::of::<schemas::ProfileName>(),
        "Whose numerics. Default onnx, of floats compressed-tensors.";
    pub NAN: "nan", Words<NanPolicy> = Words::of::<schemas::NanName>(),
        "What happens to NaN: refused, or given a code. Default: kept by formats that have it, else refused.";
    pub PACKED: "packed", Flag = Flag,
        "Codes below 8 bits leave as a bit stream, low bits first, as ONNX packs; wider ones as they are. Default: \
         true for blocks of floats, as their peers pack them, else false.";
    pub SATURATE: "saturate", Flag = Flag,
        "What is too large for a float becomes the largest number, and not infinity or NaN. Default: true for fp8, \
         false for f16 and bf16.";
    pub SCALE_ROUNDING: "scale_rounding", Words<ScaleRounding> = Words::of::<schemas::ScaleRoundingName>(),
        "How the exponents of scales that are powers of two are found. Default floor.";
}

/// All of them, in the order in which messages and answers list them.
pub const SCHEME: Table = &[
    &PRESET,
    &FORMAT,
    &BITS,
    &SIGNED,
    &SYMMETRIC,
    &RESTRICTED,
    &GRANULARITY,
    &AXIS,
    &GROUP_SIZE,
    &BLOCK_SHAPE,
    &RANGE,
    &PERCENTILE,
    &MIN,
    &MAX,
    &SCALE,
    &ZERO_POINT,
    &PROFILE,
    &NAN,
    &PACKED,
    &SATURATE,
    &SCALE_ROUNDING,
];

/// Those of the codes alone, which calibrators have.
pub const CODES: Table = &[&PRESET, &BITS, &SIGNED, &SYMMETRIC, &RESTRICTED, &PROFILE];

/// Those of a granularity.
pub const GRANULARITIES: Table = &[&GRANULARITY, &AXIS, &GROUP_SIZE, &BLOCK_SHAPE];
