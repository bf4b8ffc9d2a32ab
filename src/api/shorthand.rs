//! Schemes in words, such as `int8 channel mse`: what `compare` calls its rows, and what may be
//! sent wherever the name of a preset may.
//!
//! Sign and bits, the granularity and the range always stand there, in this order; everything else
//! only where it is not the default.

use quantd_core::params::{Numerics, Profile};
use quantd_core::scheme::{
    Coding, Granularity, GranularityName, NanPolicy, Options, RangeMethod, RangeName,
    ScaleRounding, Scheme,
};
use quantd_core::word::Word;

use super::formats;

/// Elements of a group where none are named.
const GROUP: usize = 128;
/// Percentile where none is named.
const PERCENTILE: f64 = 99.9;

/// The words for a scheme. Ranges that the caller gave are numbers without a word: those of
/// `explicit` alone do not say the scheme.
#[must_use]
pub fn name(scheme: &Scheme) -> String {
    let default = Options { format: Some(scheme.format), ..Options::NONE }.resolve().ok();
    // Of other formats only what is not their default.
    let differs = |own: &dyn Fn(&Scheme) -> bool| {
        scheme.format.is_integer() || default.as_ref().is_none_or(own)
    };
    let mut words = Vec::new();
    if let Coding::Integer(Numerics { bits, signed, symmetric, .. }) = scheme.coding {
        words.push(format!("{}int{bits}", if signed { "" } else { "u" }));
        if symmetric != signed {
            words.push(if symmetric { "symmetric" } else { "asymmetric" }.to_owned());
        }
    } else {
        words.push(scheme.format.name().to_owned());
    }
    if differs(&|default| default.granularity != scheme.granularity) {
        words.push(granularity_word(scheme.granularity));
    }
    if differs(&|default| default.range != scheme.range) {
        words.push(range_word(scheme));
    }
    if default.as_ref().is_none_or(|default| default.profile() != scheme.profile()) {
        words.push(scheme.profile().name().to_owned());
    }
    match scheme.coding {
        Coding::Integer(Numerics { signed, symmetric, restricted, profile, .. }) => {
            if restricted != (signed && symmetric && profile.restricted_by_default()) {
                words.push(if restricted { "restricted" } else { "unrestricted" }.to_owned());
            }
        }
        Coding::Float { saturate, .. } => {
            let saturates =
                |scheme: &Scheme| matches!(scheme.coding, Coding::Float { saturate: true, .. });
            if differs(&|default| saturates(default) != saturate) {
                words.push(if saturate { "saturate" } else { "overflow" }.to_owned());
            }
        }
        Coding::Microscaling { rounding, .. } if rounding != ScaleRounding::Floor => {
            words.push(rounding.name().to_owned());
        }
        Coding::Microscaling { .. } | Coding::TwoLevel { .. } => {}
    }
    if default.as_ref().is_none_or(|default| default.nan != scheme.nan) {
        words.push(format!("nan:{}", scheme.nan.name()));
    }
    if default.as_ref().is_none_or(|default| default.packed != scheme.packed) {
        words.push(if scheme.packed { "packed" } else { "unpacked" }.to_owned());
    }
    words.join(" ")
}

fn granularity_word(granularity: Granularity) -> String {
    match granularity {
        Granularity::Channel { axis } if axis != 0 => format!("channel:{axis}"),
        Granularity::Group { axis: -1, size: GROUP } => "group".to_owned(),
        Granularity::Group { axis: -1, size } => format!("group:{size}"),
        Granularity::Group { axis, size } => format!("group:{size}:{axis}"),
        Granularity::Block { shape: [rows, columns] } => format!("block:{rows}x{columns}"),
        Granularity::Channel { .. } | Granularity::Tensor | Granularity::Token => {
            granularity.word().name().to_owned()
        }
    }
}

fn range_word(scheme: &Scheme) -> String {
    match (&scheme.range, scheme.granularity) {
        (&RangeMethod::Percentile(percentile), _)
            if percentile.to_bits() != PERCENTILE.to_bits() =>
        {
            format!("percentile:{percentile}")
        }
        (&RangeMethod::CrossEntropy { axis }, Granularity::Tensor) if axis != -1 => {
            format!("cross_entropy:{axis}")
        }
        (range, _) => range.word().name().to_owned(),
    }
}

/// The options that words stand for; `None` for other words, and for those of explicit ranges.
#[must_use]
pub fn parse(text: &str) -> Option<Options> {
    let mut words = text.split_whitespace().peekable();
    let first = words.next()?;
    let format = formats::find(first).filter(|format| !format.is_integer());
    let mut options = match format {
        Some(_) => Options { format, ..Options::NONE },
        None => code(first)?,
    };
    if let Some(word) = words.next_if(|word| ["symmetric", "asymmetric"].contains(word)) {
        options.symmetric = Some(word == "symmetric");
    }
    if format.is_none() {
        granularity(words.next()?, &mut options)?;
        range(words.next()?, &mut options)?;
    } else {
        words.next_if(|word| granularity(word, &mut options).is_some());
        words.next_if(|word| range(word, &mut options).is_some());
    }
    for word in words {
        match word.split_once(':') {
            None if word == "packed" => options.packed = Some(true),
            None if word == "unpacked" => options.packed = Some(false),
            None if word == "saturate" => options.saturate = Some(true),
            None if word == "overflow" => options.saturate = Some(false),
            None if word == "restricted" => options.restricted = Some(true),
            None if word == "unrestricted" => options.restricted = Some(false),
            None => match ScaleRounding::find(word) {
                Some(rounding) => options.scale_rounding = Some(rounding),
                None => options.profile = Some(Profile::find(word)?),
            },
            Some(("nan", policy)) => options.nan = Some(NanPolicy::find(policy)?),
            Some(_) => return None,
        }
    }
    Some(options)
}

fn code(word: &str) -> Option<Options> {
    let (signed, rest) = match word.strip_prefix('u') {
        Some(rest) => (false, rest),
        None => (true, word),
    };
    let bits: u32 = rest.strip_prefix("int")?.parse().ok()?;
    let is_one = matches!(bits, 2..=8 | 16);
    is_one.then_some(Options { bits: Some(bits), signed: Some(signed), ..Options::NONE })
}

fn granularity(word: &str, options: &mut Options) -> Option<()> {
    use GranularityName::{Block, Channel, Group, Tensor, Token};
    let mut parts = word.split(':');
    let name = GranularityName::find(parts.next()?)?;
    let (first, second) = (parts.next(), parts.next());
    match (name, first) {
        (Channel, axis) => options.axis = Some(axis.map_or(Some(0), |axis| axis.parse().ok())?),
        (Group, size) => {
            options.group_size = Some(size.map_or(Some(GROUP), |size| size.parse().ok())?);
            options.axis = Some(second.map_or(Some(-1), |axis| axis.parse().ok())?);
        }
        (Block, Some(shape)) => {
            let (rows, columns) = shape.split_once('x')?;
            options.block_shape = Some([rows.parse().ok()?, columns.parse().ok()?]);
        }
        (Tensor | Token, None) => {}
        (Block, None) | (Tensor | Token, Some(_)) => return None,
    }
    options.granularity = Some(name);
    let is_positive = options.group_size != Some(0)
        && options.block_shape.is_none_or(|shape| !shape.contains(&0));
    let is_read = parts.next().is_none() && (second.is_none() || name == Group);
    (is_positive && is_read).then_some(())
}

fn range(word: &str, options: &mut Options) -> Option<()> {
    let (name, detail) = match word.split_once(':') {
        Some((name, detail)) => (name, Some(detail)),
        None => (word, None),
    };
    let name = RangeName::find(name).filter(|&name| name != RangeName::Explicit)?;
    match (name, detail) {
        (RangeName::Percentile, detail) => {
            let percentile = detail.map_or(Some(PERCENTILE), |detail| detail.parse().ok())?;
            options.percentile =
                Some(percentile).filter(|percentile| (50.0..=100.0).contains(percentile));
            options.percentile?;
        }
        (RangeName::CrossEntropy, Some(axis))
            if options.granularity == Some(GranularityName::Tensor) =>
        {
            options.axis = Some(axis.parse().ok()?);
        }
        (_, None) => {}
        (_, Some(_)) => return None,
    }
    options.range = Some(name);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every scheme that such options make is what its name says.
    #[test]
    fn names_go_back() {
        let ranges = [
            (RangeName::MinMax, None),
            (RangeName::Percentile, Some(99.9)),
            (RangeName::Percentile, Some(98.25)),
            (RangeName::Mse, None),
            (RangeName::EntropyOrt, None),
            (RangeName::CrossEntropy, None),
        ];
        let granularities = [
            (GranularityName::Tensor, None, None, None),
            (GranularityName::Channel, Some(0), None, None),
            (GranularityName::Channel, Some(-1), None, None),
            (GranularityName::Group, Some(-1), Some(128), None),
            (GranularityName::Group, Some(-1), Some(32), None),
            (GranularityName::Group, Some(0), Some(32), None),
            (GranularityName::Block, None, None, Some([128, 64])),
            (GranularityName::Token, None, None, None),
        ];
        let mut names = std::collections::BTreeSet::new();
        for (range, percentile) in ranges {
            for (granularity, axis, group_size, block_shape) in granularities {
                for i in 0..64 {
                    let flag = |bit: u32| Some((i >> bit) & 1 != 0);
                    let given = Options {
                        bits: Some(if i & 1 != 0 { 4 } else { 7 }),
                        signed: flag(1),
                        symmetric: flag(2),
                        packed: flag(3),
                        nan: Some(NanPolicy::ALL[(i >> 4) & 1]),
                        profile: Some(Profile::ALL[(i >> 5) & 1]),
                        granularity: Some(granularity),
                        range: Some(range),
                        axis,
                        group_size,
                        block_shape,
                        percentile,
                        ..Options::default()
                    };
                    let Ok(scheme) = given.resolve() else { continue };
                    let name = name(&scheme);
                    let parsed = parse(&name).unwrap_or_else(|| panic!("{name}"));
                    let again = parsed.resolve().unwrap();
                    assert_eq!(format!("{again:?}"), format!("{scheme:?}"), "{name}");
                    names.insert(name);
                }
            }
        }
        assert!(names.contains("int7 channel min_max") && names.len() > 1000, "{}", names.len());
    }

    #[test]
    fn other_words_are_none() {
        for text in [
            "",
            "int8",
            "int8 channel",
            "channel mse",
            "int9 tensor mse",
            "int8 tensor explicit",
            "int8 tensor mse mse",
            "int8 tensor:1 mse",
            "int8 group:0 mse",
            "int8 group:x mse",
            "int8 channel:0:1 mse",
            "int8 block mse",
            "int8 tensor percentile:20",
            "int8 tensor mse:1",
            "int8 tensor mse nan:x",
            "Int8 tensor mse",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
