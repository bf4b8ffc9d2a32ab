//! The fields of a scheme.

use quantd_core::format::Format;
use quantd_core::params::Profile;
use quantd_core::scheme::{GranularityName, NanPolicy, Options, RangeName};

use crate::api::error::Error;
use crate::api::fields::Fields;
use crate::api::fields::field::{
    Component, Field, Flag, Form, Integer, Integers, Kind, Numbers, Real, Sizes, Table, Words,
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

/// A common scheme.
pub const PRESET: Field<Preset> = Field {
    name: "preset",
    summary: "A common scheme to start from; other fields override it.",
    kind: Preset,
};
/// `scheme=int8` in a query.
pub const SHORT: Field<Preset> =
    Field { name: "scheme", summary: "Short for `preset`.", kind: Preset };
/// How numbers are stored.
pub const FORMAT: Field<FormatWord> =
    Field { name: "format", summary: "How numbers are stored. Default int.", kind: FormatWord };
/// Bits of a code.
pub const BITS: Field<Integer> = Field {
    name: "bits",
    summary: "Bits of a code: 2 to 8, or 16. Default 8.",
    kind: Integer { min: 2, max: 16, bounded: true },
};
/// Signed codes.
pub const SIGNED: Field<Flag> =
    Field { name: "signed", summary: "Two's complement codes. Default true.", kind: Flag };
/// Symmetric codes.
pub const SYMMETRIC: Field<Flag> = Field {
    name: "symmetric",
    summary: "Zero point fixed in the middle. Default: as `signed`.",
    kind: Flag,
};
/// Without the most negative code.
pub const RESTRICTED: Field<Flag> = Field {
    name: "restricted",
    summary: "Leave out the most negative code (-127..127). Default: for signed symmetric codes of the \
              profiles `onnx` and `tflite`.",
    kind: Flag,
};
/// Which elements share parameters.
pub const GRANULARITY: Field<Words<GranularityName>> = Field {
    name: "granularity",
    summary: "Which elements share a scale. Default: implied by `axis` (but with `range=cross_entropy`, where \
              it is that of the softmax), `group_size` or `block_shape`, else tensor.",
    kind: Words::of::<schemas::GranularityName>(),
};
/// Axis of channels or groups.
pub const AXIS: Field<Integer> = Field {
    name: "axis",
    summary: "Axis of channels (default 0) or groups (default -1); of the softmax for `cross_entropy` over a \
              tensor.",
    kind: integer(-MAX_SIZE, MAX_SIZE),
};
/// Elements of a group.
pub const GROUP_SIZE: Field<Integer> = Field {
    name: "group_size",
    summary: "Elements of a group along the axis.",
    kind: integer(1, MAX_SIZE),
};
/// Rows and columns of a block.
pub const BLOCK_SHAPE: Field<Sizes> = Field {
    name: "block_shape",
    summary: "Rows and columns of a block of the last two axes.",
    kind: Sizes { count: Some(2), most: None },
};
/// Range method.
pub const RANGE: Field<Words<RangeName>> = Field {
    name: "range",
    summary: "How the clipping range is found. Default `min_max`.",
    kind: Words::of::<schemas::RangeName>(),
};
/// Percentile of the range.
pub const PERCENTILE: Field<Real> = Field {
    name: "percentile",
    summary: "Percentile of range percentile.",
    kind: Real { min: 50.0, max: 100.0 },
};
/// Lower ends.
pub const MIN: Field<Numbers> = Field {
    name: "min",
    summary: "Lower end of range explicit: one number, or one a slice.",
    kind: Numbers { component: ONE_OR_MORE },
};
/// Upper ends.
pub const MAX: Field<Numbers> = Field {
    name: "max",
    summary: "Upper end of range explicit: one number, or one a slice.",
    kind: Numbers { component: ONE_OR_MORE },
};
/// Explicit scales.
pub const SCALE: Field<Numbers> = Field {
    name: "scale",
    summary: "Scale of range explicit: one number, or one a slice.",
    kind: Numbers { component: ONE_OR_MORE },
};
/// Explicit zero points.
pub const ZERO_POINT: Field<Integers> = Field {
    name: "zero_point",
    summary: "Zero point beside `scale`: one integer, or one a slice.",
    kind: Integers { component: ONE_OR_MORE },
};
/// Whose numerics.
pub const PROFILE: Field<Words<Profile>> = Field {
    name: "profile",
    summary: "Whose numerics. Default onnx.",
    kind: Words::of::<schemas::ProfileName>(),
};
/// NaN policy.
pub const NAN: Field<Words<NanPolicy>> = Field {
    name: "nan",
    summary: "What happens to NaN: refused (default), or given a code.",
    kind: Words::of::<schemas::NanName>(),
};
/// Packed codes.
pub const PACKED: Field<Flag> = Field {
    name: "packed",
    summary: "Codes below 8 bits leave as a bit stream, low bits first, as ONNX packs; wider ones as they are.",
    kind: Flag,
};

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
];

/// Those of the codes alone, which calibrators have.
pub const CODES: Table = &[&PRESET, &BITS, &SIGNED, &SYMMETRIC, &RESTRICTED, &PROFILE];

/// Those of a granularity.
pub const GRANULARITIES: Table = &[&GRANULARITY, &AXIS, &GROUP_SIZE, &BLOCK_SHAPE];
