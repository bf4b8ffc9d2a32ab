//! From flat options to a [`Scheme`]: defaults, presets, contradictions.

use serde_json::Value;

use quantd_core::params::{Numerics, Profile};
use quantd_core::scheme::{Granularity, NanPolicy, RangeMethod, Scheme};

use super::error::{Error, Kind, Place};
use super::fields::{Fields, Origin};
use super::guess::{GUESS, guess, nearest};
use super::presets;

/// Every scheme field, in the order in which messages and answers list them.
pub const SCHEME_FIELDS: [&str; 19] = [
    "preset",
    "bits",
    "signed",
    "symmetric",
    "restricted",
    "granularity",
    "axis",
    "group_size",
    "block_shape",
    "range",
    "percentile",
    "min",
    "max",
    "scale",
    "zero_point",
    "profile",
    "nan",
    "packed",
    "scheme",
];
pub(super) const GRANULARITIES: [&str; 5] = ["tensor", "channel", "group", "block", "token"];
pub(super) const RANGES: [&str; 8] = [
    "min_max",
    "percentile",
    "mse",
    "entropy_ort",
    "entropy_tensorrt",
    "entropy_modelopt",
    "cross_entropy",
    "explicit",
];
const MAX_SIZE: i64 = 1 << 31;

/// The fields of a scheme that were given, each valid by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Bits of a code.
    pub bits: Option<u32>,
    /// Signed codes.
    pub signed: Option<bool>,
    /// Symmetric codes.
    pub symmetric: Option<bool>,
    /// Without the most negative code.
    pub restricted: Option<bool>,
    /// Which elements share parameters.
    pub granularity: Option<&'static str>,
    /// Axis of channels or groups.
    pub axis: Option<i64>,
    /// Elements of a group.
    pub group_size: Option<usize>,
    /// Rows and columns of a block.
    pub block_shape: Option<[usize; 2]>,
    /// Range method.
    pub range: Option<&'static str>,
    /// Percentile of the range.
    pub percentile: Option<f64>,
    /// Lower ends of explicit ranges.
    pub min: Option<Vec<f64>>,
    /// Upper ends of explicit ranges.
    pub max: Option<Vec<f64>>,
    /// Explicit scales.
    pub scale: Option<Vec<f64>>,
    /// Explicit zero points.
    pub zero_point: Option<Vec<i64>>,
    /// Whose numerics.
    pub profile: Option<Profile>,
    /// NaN policy.
    pub nan: Option<NanPolicy>,
    /// Packed codes.
    pub packed: Option<bool>,
}

impl Options {
    /// Takes the scheme fields out of `fields`; those of a preset stand where
    /// nothing else was given.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] names the first field with a wrong value.
    pub fn take(fields: &mut Fields) -> Result<Self, Error> {
        let preset = match presets::take(fields, "preset")? {
            Some(preset) => Some(preset),
            // `scheme=int8` in a query is short for the preset, as it is in JSON.
            None => presets::take(fields, "scheme")?,
        };
        let base = preset.unwrap_or_default();
        let bits = fields.integer("bits", 2, 16).and_then(|bits| match bits {
            Some(9..16) => Err(fields.error("bits", "not a supported number of bits")),
            bits => Ok(bits),
        });
        let bits = bits.map_err(|error| error.cure("use 2, 3, 4, 5, 6, 7, 8 or 16"))?;
        let profiles = Profile::ALL.map(Profile::name);
        let profile = fields.word("profile", &profiles)?;
        let nans = NanPolicy::ALL.map(NanPolicy::name);
        let nan = fields.word("nan", &nans)?;
        Ok(Self {
            bits: bits.and_then(|bits| u32::try_from(bits).ok()).or(base.bits),
            signed: fields.bool("signed")?.or(base.signed),
            symmetric: fields.bool("symmetric")?.or(base.symmetric),
            restricted: fields.bool("restricted")?.or(base.restricted),
            range: fields.word("range", &RANGES)?,
            percentile: fields.number("percentile", 50.0, 100.0)?,
            min: fields.numbers("min")?,
            max: fields.numbers("max")?,
            scale: fields.numbers("scale")?,
            zero_point: fields.integers("zero_point")?,
            profile: profile
                .and_then(|name| Profile::ALL.into_iter().find(|p| p.name() == name))
                .or(base.profile),
            nan: nan
                .and_then(|name| NanPolicy::ALL.into_iter().find(|p| p.name() == name))
                .or(base.nan),
            packed: fields.bool("packed")?.or(base.packed),
            ..Self::take_granularity(fields)?
        }
        .over(&base)
        .over_range(&base))
    }

    /// Takes the fields of a granularity, its name included, and no others.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] names the first field with a wrong value.
    pub fn take_granularity(fields: &mut Fields) -> Result<Self, Error> {
        Ok(Self {
            granularity: fields.word("granularity", &GRANULARITIES)?,
            axis: fields.integer("axis", -MAX_SIZE, MAX_SIZE)?,
            group_size: size(fields.integer("group_size", 1, MAX_SIZE)?),
            block_shape: block_shape(fields)?,
            ..Self::default()
        })
    }

    /// Granularity and its sizes come from the preset only as a whole: naming
    /// any of them replaces the preset's.
    fn over(self, base: &Self) -> Self {
        let own =
            self.granularity.is_some() || self.group_size.is_some() || self.block_shape.is_some();
        if own || base.granularity.is_none() {
            return self;
        }
        Self {
            granularity: base.granularity,
            axis: self.axis.or(base.axis),
            group_size: base.group_size,
            block_shape: base.block_shape,
            ..self
        }
    }

    /// The same of a range: naming any of it replaces what the words for the scheme say.
    fn over_range(self, base: &Self) -> Self {
        let own = self.range.is_some()
            || self.percentile.is_some()
            || [&self.min, &self.max, &self.scale].into_iter().any(Option::is_some)
            || self.zero_point.is_some();
        if own {
            return self;
        }
        Self { range: base.range, percentile: base.percentile, ..self }
    }

    /// Checks the fields against one another and fills in the defaults.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] names a field that contradicts another.
    pub fn resolve(&self, origin: &Origin) -> Result<Scheme, Error> {
        let refuse = |field: &str, detail: &str, cure: &str| {
            Err(Error::new(Kind::InvalidOption, detail).at(origin.place(field)).cure(cure))
        };
        let profile = self.profile.unwrap_or(Profile::Onnx);
        let bits = self.bits.unwrap_or(8);
        let signed = self.signed.unwrap_or(true);
        if profile == Profile::CompressedTensors && !signed {
            return refuse(
                "signed",
                "compressed-tensors has signed codes only",
                "leave signed out",
            );
        }
        let given = self.scale.is_some();
        let symmetric =
            self.symmetric.unwrap_or(if given { self.is_centred(bits, signed) } else { signed });
        let restricted = self.restricted.unwrap_or(
            signed
                && symmetric
                && profile.restricted_by_default()
                // `QuantizeLinear` with a given scale saturates to the full range.
                && (!given || self.symmetric == Some(true)),
        );
        if restricted && !(signed && symmetric) {
            return refuse(
                "restricted",
                "only signed symmetric codes can be restricted",
                "leave restricted out, or set signed and symmetric",
            );
        }
        let numerics = Numerics { profile, bits, signed, symmetric, restricted };
        let range = self.range(&numerics, origin)?;
        let granularity = self.granularity(&range, origin)?;
        let nan = self.nan.unwrap_or(NanPolicy::Refuse);
        let packed = self.packing(bits);
        Ok(Scheme { numerics, granularity, range, nan, packed })
    }

    /// Whether codes of so many bits are packed; those of 8 and 16 fill their bytes as they are.
    #[must_use]
    pub fn packing(&self, bits: u32) -> bool {
        bits < 8 && self.packed == Some(true)
    }

    /// Whether anything says which elements share parameters.
    #[must_use]
    pub const fn names_granularity(&self) -> bool {
        self.granularity.is_some()
            || self.axis.is_some()
            || self.group_size.is_some()
            || self.block_shape.is_some()
    }

    /// The granularity alone, for codes that are quantized already.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] names a field that contradicts another.
    pub fn resolve_granularity(&self, origin: &Origin) -> Result<Granularity, Error> {
        let range = match self.range {
            Some("cross_entropy") => RangeMethod::CrossEntropy { axis: -1 },
            _ => RangeMethod::MinMax,
        };
        self.granularity(&range, origin)
    }

    /// Whether all given zero points are those of symmetric codes.
    fn is_centred(&self, bits: u32, signed: bool) -> bool {
        let middle = if signed { 0 } else { 1_i64 << (bits - 1) };
        match &self.zero_point {
            Some(zero_point) => zero_point.iter().all(|&z| z == middle),
            None => signed,
        }
    }

    /// The granularity, named or implied by the fields that only one has.
    fn granularity(&self, range: &RangeMethod, origin: &Origin) -> Result<Granularity, Error> {
        let softmax = matches!(range, RangeMethod::CrossEntropy { .. });
        let name =
            self.granularity.unwrap_or(match (self.group_size, self.block_shape, self.axis) {
                (Some(_), _, _) => "group",
                (None, Some(_), _) => "block",
                (None, None, Some(_)) if !softmax => "channel",
                _ => "tensor",
            });
        let misplaced = [
            ("axis", self.axis.is_some(), ["channel", "group"]),
            ("group_size", self.group_size.is_some(), ["group", "group"]),
            ("block_shape", self.block_shape.is_some(), ["block", "block"]),
        ];
        for (field, given, needs) in misplaced {
            let allowed = needs.contains(&name) || (field == "axis" && softmax && name == "tensor");
            if given && !allowed {
                let detail = format!("does not go with granularity {name}");
                let cure = format!("use granularity {}, or leave {field} out", needs[0]);
                return Err(Error::new(Kind::InvalidOption, detail)
                    .at(origin.place(field))
                    .cure(cure));
            }
        }
        let missing = |field: &str, cure: &str| {
            Error::new(Kind::InvalidOption, format!("missing for granularity {name}"))
                .at(origin.place(field))
                .cure(cure.to_owned())
        };
        Ok(match name {
            "channel" => Granularity::Channel { axis: self.axis.unwrap_or(0) },
            "group" => Granularity::Group {
                axis: self.axis.unwrap_or(-1),
                size: self.group_size.ok_or_else(|| missing("group_size", "for instance 128"))?,
            },
            "block" => Granularity::Block {
                shape: self
                    .block_shape
                    .ok_or_else(|| missing("block_shape", "for instance [128, 128]"))?,
            },
            "token" => Granularity::Token,
            _ => Granularity::Tensor,
        })
    }

    /// The range method, named or implied by the fields that only one has.
    fn range(&self, numerics: &Numerics, origin: &Origin) -> Result<RangeMethod, Error> {
        let refuse = |field: &str, detail: String, cure: &str| {
            Err(Error::new(Kind::InvalidOption, detail).at(origin.place(field)).cure(cure))
        };
        let explicit = [
            ("min", self.min.is_some()),
            ("max", self.max.is_some()),
            ("scale", self.scale.is_some()),
            ("zero_point", self.zero_point.is_some()),
        ];
        let any_explicit = explicit.iter().any(|(_, given)| *given);
        let name = self.range.unwrap_or(match (any_explicit, self.percentile) {
            (true, _) => "explicit",
            (false, Some(_)) => "percentile",
            (false, None) => "min_max",
        });
        if self.percentile.is_some() && name != "percentile" {
            let detail = format!("does not go with range {name}");
            return refuse("percentile", detail, "use range percentile, or leave percentile out");
        }
        if let Some((field, _)) = explicit.iter().find(|(_, given)| *given && name != "explicit") {
            let detail = format!("does not go with range {name}");
            return refuse(field, detail, "use range explicit, or leave the field out");
        }
        Ok(match name {
            "percentile" => match self.percentile {
                Some(percentile) => RangeMethod::Percentile(percentile),
                None => return refuse("percentile", "missing".to_owned(), "for instance 99.9"),
            },
            "mse" => RangeMethod::Mse,
            "entropy_ort" => RangeMethod::EntropyOrt,
            "entropy_tensorrt" => RangeMethod::EntropyTensorrt,
            "entropy_modelopt" => RangeMethod::EntropyModelopt,
            "cross_entropy" => RangeMethod::CrossEntropy { axis: self.axis.unwrap_or(-1) },
            "explicit" => self.explicit(numerics, origin)?,
            _ => RangeMethod::MinMax,
        })
    }

    fn explicit(&self, numerics: &Numerics, origin: &Origin) -> Result<RangeMethod, Error> {
        let refuse = |field: &str, detail: &str, cure: &str| {
            Err(Error::new(Kind::InvalidOption, detail).at(origin.place(field)).cure(cure))
        };
        match (&self.min, &self.max, &self.scale) {
            (Some(min), Some(max), None) if self.zero_point.is_none() => {
                let pairs = min.len().max(max.len());
                let at = |values: &[f64], i: usize| values.get(i).or(values.first()).copied();
                if (0..pairs).any(|i| at(min, i) > at(max, i)) {
                    return refuse("min", "above max", "swap them");
                }
                Ok(RangeMethod::Explicit { min: min.clone(), max: max.clone() })
            }
            (None, None, Some(scale)) => {
                if scale.iter().any(|&scale| scale <= 0.0) {
                    return refuse("scale", "not positive", "a scale is the step between codes");
                }
                let codes = numerics.code_range();
                let mut zero_point = Vec::new();
                for &z in self.zero_point.iter().flatten() {
                    match i32::try_from(z) {
                        Ok(z) if (codes.min..=codes.max).contains(&z) => zero_point.push(z),
                        _ => {
                            let cure = format!("use {} to {}", codes.min, codes.max);
                            return refuse("zero_point", "not one of the codes", &cure);
                        }
                    }
                }
                if numerics.symmetric && zero_point.iter().any(|&z| z != numerics.middle()) {
                    return refuse("zero_point", "contradicts symmetric", "leave one of them out");
                }
                Ok(RangeMethod::Given { scale: scale.clone(), zero_point })
            }
            (_, _, None) if self.zero_point.is_some() => {
                refuse("zero_point", "given without scale", "add scale, or leave zero_point out")
            }
            (Some(_), None, None) => refuse("max", "missing", "range explicit takes min and max"),
            (None, Some(_), None) => refuse("min", "missing", "range explicit takes min and max"),
            (None, None, None) => refuse(
                "range",
                "explicit, but nothing given",
                "add min and max, or scale and zero_point",
            ),
            _ => refuse("scale", "contradicts min and max", "give the range, or the scale"),
        }
    }
}

fn size(value: Option<i64>) -> Option<usize> {
    value.and_then(|value| usize::try_from(value).ok())
}

fn block_shape(fields: &mut Fields) -> Result<Option<[usize; 2]>, Error> {
    match fields.sizes("block_shape")?.as_deref() {
        None => Ok(None),
        Some(&[rows, columns])
            if [rows, columns].iter().all(|&n| n >= 1 && n as u64 <= 1 << 31) =>
        {
            Ok(Some([rows, columns]))
        }
        Some(_) => Err(fields
            .error("block_shape", "not two positive sizes")
            .cure("for instance [128, 128]")),
    }
}

/// The options of a JSON value at `pointer`: an object of scheme fields or the
/// name of a preset.
///
/// # Errors
/// [`Kind::InvalidOption`] names the field at fault.
pub fn options_of_value(value: Value, pointer: &str) -> Result<Options, Error> {
    options_at(value, &Origin::Body(pointer.to_owned()))
}

/// The same of fields that stand at `origin`.
fn options_at(value: Value, origin: &Origin) -> Result<Options, Error> {
    let place = match origin {
        Origin::Query => Place::Parameter("scheme".to_owned()),
        Origin::Body(pointer) => Place::Pointer(pointer.clone()),
    };
    match value {
        Value::Object(map) => {
            let mut fields = Fields::new(map, origin.clone());
            let options = Options::take(&mut fields)?;
            fields.finish(&SCHEME_FIELDS[..18])?;
            Ok(options)
        }
        Value::String(name) => presets::find(&name).ok_or_else(|| presets::unknown(place, &name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            Err(Error::new(Kind::InvalidOption, "not a scheme")
                .at(place)
                .cure("use an object of scheme fields or the name of a preset"))
        }
    }
}

/// The scheme of such a value; `null` is the default one.
///
/// # Errors
/// [`Kind::InvalidOption`] names the field at fault.
pub fn scheme_of_value(value: Value, pointer: &str) -> Result<Scheme, Error> {
    scheme_at(value, &Origin::Body(pointer.to_owned()))
}

/// The same of fields that stand at `origin`.
///
/// # Errors
/// [`Kind::InvalidOption`] names the field at fault.
pub fn scheme_at(value: Value, origin: &Origin) -> Result<Scheme, Error> {
    let options = if value.is_null() { Options::default() } else { options_at(value, origin)? };
    options.resolve(origin)
}

/// Says of what stands beside a scheme, and is not known there, which field of the scheme was meant.
#[must_use]
pub fn beside_scheme(error: Error) -> Error {
    let meant = |name: &str| nearest(name, SCHEME_FIELDS[..18].iter().copied());
    let cure = match &error.place {
        _ if error.cure.starts_with(GUESS) => return error,
        Some(Place::Pointer(pointer)) => {
            let name = pointer.rsplit('/').next().unwrap_or_default();
            meant(name).map(|field| {
                let guess = if field == name { String::new() } else { guess(field) };
                format!("{guess}put it into the scheme: \"scheme\": {{\"{field}\": ..}}")
            })
        }
        Some(Place::Parameter(name)) => {
            meant(name).map(|field| format!("{}{}", guess(field), error.cure))
        }
        Some(Place::Header(_)) | None => None,
    };
    match cure {
        Some(cure) => error.cure(cure),
        None => error,
    }
}

#[cfg(test)]
mod tests;
