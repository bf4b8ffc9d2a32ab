//! Schemes as requests say them: fields by name, presets, and words.

mod fields;

use std::sync::LazyLock;

use serde_json::Value;

use quantd_core::scheme::{Options, Scheme};

use super::error::{Error, Kind, Place};
use super::fields::field::names;
use super::fields::{Fields, Origin};
use super::guess::{GUESS, guess, nearest};
use super::presets;

pub use fields::*;

/// The names of the fields of a scheme, in the order in which messages and answers list them.
pub static SCHEME_FIELDS: LazyLock<Vec<&'static str>> = LazyLock::new(|| names(&[SCHEME]));

/// Takes the scheme fields out of `fields`; those of a preset stand where
/// nothing else was given.
///
/// # Errors
/// [`Kind::InvalidOption`] names the first field with a wrong value.
pub fn take(fields: &mut Fields) -> Result<Options, Error> {
    let preset = match fields.get(&PRESET)? {
        Some(preset) => Some(preset),
        // As it is in JSON.
        None => fields.get(&SHORT)?,
    };
    let bits = fields.get(&BITS).and_then(|bits| match bits {
        Some(9..16) => Err(fields.error(BITS.name, "not a supported number of bits")),
        bits => Ok(bits),
    });
    let bits = bits.map_err(|error| error.cure("use 2, 3, 4, 5, 6, 7, 8 or 16"))?;
    let options = Options {
        format: fields.get(&FORMAT)?,
        bits: bits.and_then(|bits| u32::try_from(bits).ok()),
        signed: fields.get(&SIGNED)?,
        symmetric: fields.get(&SYMMETRIC)?,
        restricted: fields.get(&RESTRICTED)?,
        range: fields.get(&RANGE)?,
        percentile: fields.get(&PERCENTILE)?,
        min: fields.get(&MIN)?,
        max: fields.get(&MAX)?,
        scale: fields.get(&SCALE)?,
        zero_point: fields.get(&ZERO_POINT)?,
        profile: fields.get(&PROFILE)?,
        nan: fields.get(&NAN)?,
        packed: fields.get(&PACKED)?,
        saturate: fields.get(&SATURATE)?,
        scale_rounding: fields.get(&SCALE_ROUNDING)?,
        ..take_granularity(fields)?
    };
    Ok(options.over(&preset.unwrap_or_default()))
}

/// Takes the fields of a granularity, its name included, and no others.
///
/// # Errors
/// [`Kind::InvalidOption`] names the first field with a wrong value.
pub fn take_granularity(fields: &mut Fields) -> Result<Options, Error> {
    Ok(Options {
        granularity: fields.get(&GRANULARITY)?,
        axis: fields.get(&AXIS)?,
        group_size: size(fields.get(&GROUP_SIZE)?),
        block_shape: block_shape(fields)?,
        ..Options::default()
    })
}

/// The scheme of options that stand at `origin`.
///
/// # Errors
/// [`Kind::InvalidOption`] names a field that contradicts another.
pub fn resolve(options: &Options, origin: &Origin) -> Result<Scheme, Error> {
    options.resolve().map_err(|error| Error::of_quant(error, |field| origin.place(field)))
}

fn size(value: Option<i64>) -> Option<usize> {
    value.and_then(|value| usize::try_from(value).ok())
}

fn block_shape(fields: &mut Fields) -> Result<Option<[usize; 2]>, Error> {
    match fields.get(&BLOCK_SHAPE)?.as_deref() {
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
            let options = take(&mut fields)?;
            fields.finish(&SCHEME_FIELDS)?;
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
    resolve(&options, origin)
}

/// Says of what stands beside a scheme, and is not known there, which field of the scheme was meant.
#[must_use]
pub fn beside_scheme(error: Error) -> Error {
    let meant = |name: &str| nearest(name, SCHEME_FIELDS.iter().copied());
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
