//! Schemes in words, such as `int8 channel mse`: what `compare` calls its rows, and what may be
//! sent wherever the name of a preset may.
//!
//! Sign and bits, the granularity and the range always stand there, in this order; everything else
//! only where it is not the default.

use quantd_core::params::Profile;
use quantd_core::scheme::{Granularity, NanPolicy, RangeMethod, Scheme};

use super::options::{GRANULARITIES, Options, RANGES};

/// Elements of a group where none are named.
const GROUP: usize = 128;
/// Percentile where none is named.
const PERCENTILE: f64 = 99.9;

/// The words for a scheme. Ranges that the caller gave are numbers without a word: those of
/// `explicit` alone do not say the scheme.
#[must_use]
pub fn name(scheme: &Scheme) -> String {
    let numerics = &scheme.numerics;
    let (signed, symmetric) = (numerics.signed, numerics.symmetric);
    let sign = if signed { "" } else { "u" };
    let mut words = vec![format!("{sign}int{}", numerics.bits)];
    if symmetric != signed {
        words.push(if symmetric { "symmetric" } else { "asymmetric" }.to_owned());
    }
    words.push(match scheme.granularity {
        Granularity::Channel { axis } if axis != 0 => format!("channel:{axis}"),
        Granularity::Group { axis: -1, size: GROUP } => "group".to_owned(),
        Granularity::Group { axis: -1, size } => format!("group:{size}"),
        Granularity::Group { axis, size } => format!("group:{size}:{axis}"),
        Granularity::Block { shape: [rows, columns] } => format!("block:{rows}x{columns}"),
        Granularity::Channel { .. } | Granularity::Tensor | Granularity::Token => {
            scheme.granularity.name().to_owned()
        }
    });
    words.push(match (&scheme.range, scheme.granularity) {
        (&RangeMethod::Percentile(percentile), _)
            if percentile.to_bits() != PERCENTILE.to_bits() =>
        {
            format!("percentile:{percentile}")
        }
        (&RangeMethod::CrossEntropy { axis }, Granularity::Tensor) if axis != -1 => {
            format!("cross_entropy:{axis}")
        }
        (range, _) => range.name().to_owned(),
    });
    if numerics.profile != Profile::Onnx {
        words.push(numerics.profile.name().to_owned());
    }
    if numerics.restricted != (signed && symmetric && numerics.profile.restricted_by_default()) {
        words.push(if numerics.restricted { "restricted" } else { "unrestricted" }.to_owned());
    }
    if scheme.nan != NanPolicy::Refuse {
        words.push(format!("nan:{}", scheme.nan.name()));
    }
    if scheme.packed {
        words.push("packed".to_owned());
    }
    words.join(" ")
}

/// The options that words stand for; `None` for other words, and for those of explicit ranges.
#[must_use]
pub fn parse(text: &str) -> Option<Options> {
    let mut words = text.split_whitespace().peekable();
    let mut options = code(words.next()?)?;
    if let Some(word) = words.next_if(|word| ["symmetric", "asymmetric"].contains(word)) {
        options.symmetric = Some(word == "symmetric");
    }
    granularity(words.next()?, &mut options)?;
    range(words.next()?, &mut options)?;
    for word in words {
        match word.split_once(':') {
            None if word == "packed" => options.packed = Some(true),
            None if word == "restricted" => options.restricted = Some(true),
            None if word == "unrestricted" => options.restricted = Some(false),
            None => options.profile = Some(Profile::ALL.into_iter().find(|p| p.name() == word)?),
            Some(("nan", policy)) => {
                options.nan = Some(NanPolicy::ALL.into_iter().find(|p| p.name() == policy)?);
            }
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
    is_one.then(|| Options { bits: Some(bits), signed: Some(signed), ..Options::default() })
}

fn granularity(word: &str, options: &mut Options) -> Option<()> {
    let mut parts = word.split(':');
    let name = parts.next()?;
    options.granularity = GRANULARITIES.into_iter().find(|one| *one == name);
    let (first, second) = (parts.next(), parts.next());
    match (options.granularity?, first) {
        ("channel", axis) => options.axis = Some(axis.map_or(Some(0), |axis| axis.parse().ok())?),
        ("group", size) => {
            options.group_size = Some(size.map_or(Some(GROUP), |size| size.parse().ok())?);
            options.axis = Some(second.map_or(Some(-1), |axis| axis.parse().ok())?);
        }
        ("block", Some(shape)) => {
            let (rows, columns) = shape.split_once('x')?;
            options.block_shape = Some([rows.parse().ok()?, columns.parse().ok()?]);
        }
        ("tensor" | "token", None) => {}
        _ => return None,
    }
    let is_positive = options.group_size != Some(0)
        && options.block_shape.is_none_or(|shape| !shape.contains(&0));
    let is_read = parts.next().is_none() && (second.is_none() || name == "group");
    (is_positive && is_read).then_some(())
}

fn range(word: &str, options: &mut Options) -> Option<()> {
    let (name, detail) = match word.split_once(':') {
        Some((name, detail)) => (name, Some(detail)),
        None => (word, None),
    };
    options.range = RANGES.into_iter().find(|one| *one == name && name != "explicit");
    match (options.range?, detail) {
        ("percentile", detail) => {
            let percentile = detail.map_or(Some(PERCENTILE), |detail| detail.parse().ok())?;
            options.percentile = (50.0..=100.0).contains(&percentile).then_some(percentile);
            options.percentile.map(drop)
        }
        ("cross_entropy", Some(axis)) if options.granularity == Some("tensor") => {
            options.axis = Some(axis.parse().ok()?);
            Some(())
        }
        (_, None) => Some(()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fields::Origin;

    /// Every scheme that such options make is what its name says.
    #[test]
    fn names_go_back() {
        let ranges = [
            ("min_max", None),
            ("percentile", Some(99.9)),
            ("percentile", Some(98.25)),
            ("mse", None),
            ("entropy_ort", None),
            ("cross_entropy", None),
        ];
        let granularities = [
            ("tensor", None, None, None),
            ("channel", Some(0), None, None),
            ("channel", Some(-1), None, None),
            ("group", Some(-1), Some(128), None),
            ("group", Some(-1), Some(32), None),
            ("group", Some(0), Some(32), None),
            ("block", None, None, Some([128, 64])),
            ("token", None, None, None),
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
                    let Ok(scheme) = given.resolve(&Origin::Query) else { continue };
                    let name = name(&scheme);
                    let parsed = parse(&name).unwrap_or_else(|| panic!("{name}"));
                    let again = parsed.resolve(&Origin::Query).unwrap();
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
