//! Names of common schemes.

use super::error::{Error, Kind, Place};
use super::fields::Fields;
use super::guess::hint;
use super::options::Options;
use super::shorthand;

/// A named scheme and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Name in requests.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    bits: u32,
    signed: bool,
    granularity: &'static str,
    axis: Option<i64>,
    group_size: Option<usize>,
    block_shape: Option<[usize; 2]>,
}

const fn preset(name: &'static str, summary: &'static str, bits: u32, signed: bool) -> Preset {
    Preset {
        name,
        summary,
        bits,
        signed,
        granularity: "tensor",
        axis: None,
        group_size: None,
        block_shape: None,
    }
}

const fn group(
    name: &'static str,
    summary: &'static str,
    bits: u32,
    signed: bool,
    size: usize,
) -> Preset {
    Preset {
        granularity: "group",
        axis: Some(-1),
        group_size: Some(size),
        ..preset(name, summary, bits, signed)
    }
}

/// Every preset.
pub const PRESETS: [Preset; 14] = [
    preset("int8", "signed, symmetric, one scale", 8, true),
    preset("uint8", "unsigned, asymmetric, one scale", 8, false),
    preset("int4", "signed, symmetric, one scale", 4, true),
    preset("uint4", "unsigned, asymmetric, one scale", 4, false),
    preset("int2", "signed, symmetric, one scale", 2, true),
    preset("int16", "signed, symmetric, one scale", 16, true),
    preset("uint16", "unsigned, asymmetric, one scale", 16, false),
    Preset {
        granularity: "channel",
        axis: Some(0),
        ..preset("int8_per_channel", "weights: a scale for each index of axis 0", 8, true)
    },
    Preset {
        granularity: "token",
        ..preset("int8_per_token", "activations: a scale for each vector of the last axis", 8, true)
    },
    Preset {
        granularity: "block",
        block_shape: Some([128, 128]),
        ..preset("int8_block128", "a scale for each 128 x 128 tile", 8, true)
    },
    Preset {
        granularity: "channel",
        axis: Some(0),
        ..preset("int4_per_channel", "weights: a scale for each index of axis 0", 4, true)
    },
    group("int4_g32", "weights: a scale for each 32 neighbours of the last axis", 4, true, 32),
    group("int4_g128", "weights: a scale for each 128 neighbours of the last axis", 4, true, 128),
    group("uint4_g128", "weights, asymmetric: as int4_g128 with zero points", 4, false, 128),
];

/// The options of the preset of that name, or of a scheme in words.
#[must_use]
pub fn find(name: &str) -> Option<Options> {
    let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) else {
        return shorthand::parse(name);
    };
    Some(Options {
        bits: Some(preset.bits),
        signed: Some(preset.signed),
        // Left out for one tensor, so that an axis or a size beside the preset can say otherwise.
        granularity: (preset.granularity != "tensor").then_some(preset.granularity),
        axis: preset.axis,
        group_size: preset.group_size,
        block_shape: preset.block_shape,
        ..Options::default()
    })
}

/// Takes the preset named by `field`.
///
/// # Errors
/// [`Kind::InvalidOption`] for a name that is none.
pub(super) fn take(fields: &mut Fields, field: &str) -> Result<Option<Options>, Error> {
    let Some(value) = fields.scalar(field)? else { return Ok(None) };
    let name = value.as_str().unwrap_or_default();
    match find(name) {
        Some(options) => Ok(Some(options)),
        None => Err(unknown(fields.place(field), name)),
    }
}

/// The error for a name that is no preset.
#[must_use]
pub fn unknown(place: Place, name: &str) -> Error {
    let names = PRESETS.map(|preset| preset.name);
    Error::new(Kind::InvalidOption, "not a preset").at(place).cure(hint(name, &names, "use one of"))
}
