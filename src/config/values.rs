//! What the values of options may be.
//!
//! A value with which the server would start and then answer nothing is refused.

use std::ffi::OsStr;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use clap::error::ErrorKind;

use crate::api::presets::{PRESETS, Preset};
use crate::api::samples::{self, SAMPLES};
use quantd_kernels::Isa;

/// Milliseconds of a day: times beyond it are slips, and clocks overflow at the largest.
pub(super) const DAY_MS: u64 = 86_400_000;
/// Enough for any request of a few numbers.
pub(super) const LEAST_BUDGET: u64 = 1 << 20;
/// Enough for a layer or a calibrator of a few numbers.
const LEAST_STORE: u64 = 64 << 10;

/// Numbers of things without which nothing is answered.
pub(super) fn some() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// Connections: as many as Linux grants descriptors at most.
pub(super) fn connections() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1 << 20)
}

fn least(text: &str, least: u64, zero: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) if !zero.is_empty() => Ok(0),
        Ok(bytes) if bytes >= least => Ok(bytes),
        _ => Err(format!("not a number of bytes from {least} on{zero}")),
    }
}

/// Bytes of requests; 0 finds out.
pub(super) fn budget(text: &str) -> Result<u64, String> {
    least(text, LEAST_BUDGET, ", or 0")
}

/// Bytes of layers; 0 finds out.
pub(super) fn layer_bytes(text: &str) -> Result<u64, String> {
    least(text, LEAST_STORE, ", or 0")
}

/// Bytes of calibrators.
pub(super) fn calibrator_bytes(text: &str) -> Result<u64, String> {
    least(text, LEAST_STORE, "")
}

/// Names of hosts, or their ends.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_name =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if text == "*" || is_name {
        return Ok(text.trim_end_matches('.').to_ascii_lowercase());
    }
    Err("a name without scheme and port, such as quantd.example.com, or *.example.com".to_owned())
}

/// Seconds, also parts of one.
pub(super) fn delay(text: &str) -> Result<Duration, String> {
    const MAX_SECONDS: f64 = 3600.0;
    let seconds = text.parse().ok().filter(|seconds| (0.0..=MAX_SECONDS).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "not a number of seconds from 0 to 3600".to_owned())
}

/// The name of an instruction set that this machine has, or `auto`.
pub(super) fn isa() -> impl TypedValueParser<Value = Isa> {
    let names = std::iter::once("auto").chain(Isa::available().map(Isa::name));
    PossibleValuesParser::new(names.collect::<Vec<_>>())
        .map(|name| Isa::by_name(&name).unwrap_or_else(Isa::best))
}

/// The name of a preset.
pub(super) fn preset() -> PossibleValuesParser {
    let named = |preset: &Preset| PossibleValue::new(preset.name).help(preset.summary);
    PossibleValuesParser::new(PRESETS.iter().map(named))
}

/// The name of a sample.
pub(super) fn sample() -> PossibleValuesParser {
    let named = |sample: samples::Sample| PossibleValue::new(sample.name).help(sample.summary);
    PossibleValuesParser::new(SAMPLES.map(named))
}

pub(super) fn origin(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_host = |host: &str| {
        !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
    };
    if text == "*" || host.is_some_and(is_host) {
        return Ok(text.to_owned());
    }
    Err("an origin is a scheme, a host and a port only, such as https://app.example.com".to_owned())
}

/// A key that a client can send. A parser of its own: those of clap show the value that they refuse.
#[derive(Clone, Copy)]
pub(super) struct ApiKey;

impl TypedValueParser for ApiKey {
    type Value = String;

    fn parse_ref(
        &self,
        _: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        key(value).map_err(|reason| {
            clap::Error::raw(
                ErrorKind::ValueValidation,
                format!("invalid value for '--api-key': {reason}\n"),
            )
        })
    }
}

fn key(value: &OsStr) -> Result<String, &'static str> {
    let text = value.to_str().ok_or("it is not text")?;
    if text.trim().is_empty() {
        return Err("it is empty; leave it out to take all callers");
    }
    if text.trim() != text {
        return Err(
            "it begins or ends with white space, perhaps the line break of a file, and no header can",
        );
    }
    if text.chars().any(char::is_control) {
        return Err("it has a control character, and no header can");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_that_a_header_can_carry() {
        for good in ["k", "correct-horse", "a b", "schlüssel", "=/+"] {
            assert_eq!(key(OsStr::new(good)).as_deref(), Ok(good));
        }
        for bad in ["", " ", "\t\n", "key\n", " key", "key ", "ke\ny", "k\0", "\u{a0}", "k\u{7f}y"]
        {
            let reason = key(OsStr::new(bad)).unwrap_err();
            assert!(bad.trim().is_empty() || !reason.contains(bad.trim()), "{bad:?}: {reason}");
        }
    }

    #[test]
    fn budgets_are_enough_for_something() {
        assert_eq!(budget("0"), Ok(0));
        assert_eq!(budget("1048576"), Ok(1 << 20));
        for bad in ["1", "1048575", "-1", "1e9", "", "99999999999999999999"] {
            let reason = budget(bad).unwrap_err();
            assert_eq!(reason, "not a number of bytes from 1048576 on, or 0");
        }
        assert_eq!(layer_bytes("0"), Ok(0));
        assert!(layer_bytes("65535").is_err() && calibrator_bytes("0").is_err());
        assert_eq!(calibrator_bytes("65536"), Ok(65536));
    }
}
