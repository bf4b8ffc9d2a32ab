//! Names of common schemes.

use std::sync::LazyLock;

use quantd_core::scheme::{GranularityName, Options};

use super::error::{Error, Kind, Place};
use super::fields::Fields;
use super::formats;
use super::guess::hint;
use super::shorthand;

/// A named scheme and what it is for.
#[derive(Clone, Debug)]
pub struct Preset {
    /// Name in requests.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// What it says. Of a single scale nothing, so that an axis or a size beside the preset can say otherwise.
    options: Options,
}

const fn preset(name: &'static str, summary: &'static str, bits: u32, signed: bool) -> Preset {
    let options = Options { bits: Some(bits), signed: Some(signed), ..Options::NONE };
    Preset { name, summary, options }
}

impl Preset {
    const fn per_channel(mut self) -> Self {
        self.options.granularity = Some(GranularityName::Channel);
        self.options.axis = Some(0);
        self
    }

    const fn per_token(mut self) -> Self {
        self.options.granularity = Some(GranularityName::Token);
        self
    }

    const fn in_blocks(mut self, shape: [usize; 2]) -> Self {
        self.options.granularity = Some(GranularityName::Block);
        self.options.block_shape = Some(shape);
        self
    }

    const fn in_groups(mut self, size: usize) -> Self {
        self.options.granularity = Some(GranularityName::Group);
        self.options.axis = Some(-1);
        self.options.group_size = Some(size);
        self
    }
}

/// Presets of integers.
static INTEGERS: [Preset; 14] = [
    preset("int8", "signed, symmetric, one scale", 8, true),
    preset("uint8", "unsigned, asymmetric, one scale", 8, false),
    preset("int4", "signed, symmetric, one scale", 4, true),
    preset("uint4", "unsigned, asymmetric, one scale", 4, false),
    preset("int2", "signed, symmetric, one scale", 2, true),
    preset("int16", "signed, symmetric, one scale", 16, true),
    preset("uint16", "unsigned, asymmetric, one scale", 16, false),
    preset("int8_per_channel", "weights: a scale for each index of axis 0", 8, true).per_channel(),
    preset("int8_per_token", "activations: a scale for each vector of the last axis", 8, true)
        .per_token(),
    preset("int8_block128", "a scale for each 128 x 128 tile", 8, true).in_blocks([128, 128]),
    preset("int4_per_channel", "weights: a scale for each index of axis 0", 4, true).per_channel(),
    preset("int4_g32", "weights: a scale for each 32 neighbours of the last axis", 4, true)
        .in_groups(32),
    preset("int4_g128", "weights: a scale for each 128 neighbours of the last axis", 4, true)
        .in_groups(128),
    preset("uint4_g128", "weights, asymmetric: as int4_g128 with zero points", 4, false)
        .in_groups(128),
];

/// Every preset: those of integers, and each other format by its name.
pub static PRESETS: LazyLock<Vec<Preset>> = LazyLock::new(|| {
    let formats = formats::all().filter(|format| !format.is_integer());
    let formats = formats.map(|format| Preset {
        name: format.name(),
        summary: format.summary(),
        options: Options { format: Some(format), ..Options::NONE },
    });
    INTEGERS.iter().cloned().chain(formats).collect()
});

/// The options of the preset of that name, or of a scheme in words.
#[must_use]
pub fn find(name: &str) -> Option<Options> {
    match PRESETS.iter().find(|preset| preset.name == name) {
        Some(preset) => Some(preset.options.clone()),
        None => shorthand::parse(name),
    }
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
    let names: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
    Error::new(Kind::InvalidOption, "not a preset").at(place).cure(hint(name, &names, "use one of"))
}
