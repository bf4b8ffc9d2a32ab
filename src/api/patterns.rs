//! Patterns of names: a name, a glob, or a regular expression.

use regex::{Regex, RegexBuilder};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};

use quantd_codec::names::MAX_KEY_BYTES;
use quantd_core::cost;

use super::context::Context;
use super::error::{Error, Kind, Place};
use super::fields::field::{self, Component, Form};
use super::fields::{Fields, short};
use super::guess::nearest;
use super::schemas;

/// Most patterns of one list.
const MAX_PATTERNS: usize = 256;
/// Longest pattern, in bytes: as long as names may be.
const MAX_PATTERN_BYTES: usize = MAX_KEY_BYTES;
/// What a regular expression begins with.
const REGEX: &str = "re:";
/// Most bytes of a compiled pattern: what bounds the time that a byte of a name takes.
const MAX_COMPILED: usize = 64 << 10;
/// Most bytes that one pattern takes while it is compiled and matched.
const WORKING: usize = 4 << 20;
/// Longest name that is guessed to have been meant: comparing takes the product of the lengths.
const MAX_GUESS: usize = 128;
/// How a pattern is written.
const FORMS: &str =
    "use a name, a glob such as *.weight, or re: and a regular expression for the start of names";

/// A pattern as it was given, and where.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    place: Place,
}

/// Patterns of names, in an option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patterns;

impl field::Kind for Patterns {
    type Value = Vec<Pattern>;

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<Vec<Pattern>>, Error> {
        take(fields, name)
    }

    fn form(&self) -> Form {
        let text = ObjectBuilder::new().schema_type(Type::String);
        Form::NamedList(
            Component::of::<schemas::Patterns>(),
            ArrayBuilder::new().items(text).build(),
        )
    }
}

/// The patterns of a field, or `None` where it was not given.
///
/// # Errors
/// [`Kind::InvalidOption`] for what is no list of texts, for too many of them, and for one too long.
fn take(fields: &mut Fields, name: &str) -> Result<Option<Vec<Pattern>>, Error> {
    let Some(texts) = fields.texts(name)? else { return Ok(None) };
    if texts.len() > MAX_PATTERNS {
        let detail = format!("given with {} patterns, at most {MAX_PATTERNS} are", texts.len());
        return Err(fields.error(name, detail).cure("use patterns that match more"));
    }
    let pattern = |(i, text): (usize, String)| {
        let pattern = Pattern { text, place: fields.place_of_entry(name, i) };
        if pattern.text.len() > MAX_PATTERN_BYTES {
            return Err(pattern.error(format!("above {MAX_PATTERN_BYTES} bytes")).cure(FORMS));
        }
        Ok(pattern)
    };
    texts.into_iter().enumerate().map(pattern).collect::<Result<_, _>>().map(Some)
}

/// Which of `names` any of the patterns matches.
///
/// # Errors
/// [`Kind::InvalidOption`] for a pattern that is none, or that matches no name.
pub(super) fn matches(
    patterns: &[Pattern],
    names: &[&str],
    context: &mut Context<'_>,
) -> Result<Vec<bool>, Error> {
    let mut matched = vec![false; names.len()];
    if patterns.is_empty() {
        return Ok(matched);
    }
    let bytes: usize = names.iter().map(|name| name.len()).sum();
    context.afford(cost::matching(bytes) * patterns.len())?;
    // One at a time, and nothing of it stays.
    context.reserve(WORKING)?;
    for pattern in patterns {
        let compiled = pattern.compile()?;
        let mut any = false;
        for (matched, name) in matched.iter_mut().zip(names) {
            context.take(0)?;
            let is_match = pattern.text == *name || compiled.is_match(name);
            *matched |= is_match;
            any |= is_match;
        }
        if !any {
            return Err(pattern.unmatched(names));
        }
    }
    context.release(WORKING);
    Ok(matched)
}

impl Pattern {
    fn error(&self, detail: impl Into<String>) -> Error {
        Error::new(Kind::InvalidOption, detail).at(self.place.clone())
    }

    /// An expression for whole names of a glob, or for their start.
    fn compile(&self) -> Result<Regex, Error> {
        let build = |text: &str| RegexBuilder::new(text).size_limit(MAX_COMPILED).build();
        let Some(text) = self.text.strip_prefix(REGEX) else {
            let glob = regex::escape(&self.text).replace(r"\*", ".*").replace(r"\?", ".");
            return build(&format!(r"\A(?s:{glob})\z"))
                .map_err(|_| self.error("not a pattern that can be compiled").cure(FORMS));
        };
        // By itself first: what closes the group around it is no expression.
        let both = build(text).and_then(|_| build(&format!(r"\A(?:{text})")));
        both.map_err(|error| {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            let detail = format!("not a regular expression that is read here: {reason}");
            self.error(detail).cure("use the syntax of Rust's regex crate, without look-around and backreferences; in a query, commas outside of brackets separate patterns")
        })
    }

    fn unmatched(&self, names: &[&str]) -> Error {
        let names = names.iter().copied().filter(|name| name.len() <= MAX_GUESS);
        let guess = nearest(&self.text, names);
        let guess = guess.map(|guess| format!("did you mean {guess}? ")).unwrap_or_default();
        self.error(format!("pattern {:?} matches no tensor", short(&self.text)))
            .cure(format!("{guess}{FORMS}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::api::effort::Effort;
    use crate::api::fields::Origin;
    use quantd_codec::Limits;
    use quantd_core::Task;
    use quantd_kernels::Isa;

    use super::*;

    /// The names that patterns match, or the sentence of the refusal and its cure.
    fn found(patterns: &Value, names: &[&str]) -> Result<Vec<String>, (String, String)> {
        let (limits, task) = (Limits::default(), Task::new(Isa::best()));
        let mut grow = |_| Ok(());
        let effort = Effort::UNBOUNDED;
        let mut context =
            Context { limits: &limits, task: &task, spare: 0, grow: &mut grow, effort };
        let map = serde_json::Map::from_iter([("include".to_owned(), patterns.clone())]);
        let mut fields = Fields::new(map, Origin::Body(String::new()));
        let matched = take(&mut fields, "include")
            .and_then(|patterns| matches(&patterns.unwrap(), names, &mut context));
        let matched = matched.map_err(|error| (error.sentence(), error.cure))?;
        let names = names.iter().zip(matched).filter(|(_, matched)| *matched);
        Ok(names.map(|(name, _)| (*name).to_owned()).collect())
    }

    const NAMES: [&str; 6] =
        ["h.0.attn.weight", "h.10.attn.weight", "h.0.attn.bias", "a*b", "re:x", "w\u{e9}/1"];

    #[test]
    fn a_pattern_is_a_name_a_glob_or_an_expression_for_the_start() {
        for (pattern, expect) in [
            ("a*b", &["a*b"][..]),
            ("h.?.attn.*", &["h.0.attn.weight", "h.0.attn.bias"]),
            ("*attn*", &["h.0.attn.weight", "h.10.attn.weight", "h.0.attn.bias"]),
            ("w?*?", &["w\u{e9}/1"]),
            // As a name before all else.
            ("re:x", &["re:x"]),
            ("re:h\\.\\d+\\.attn", &["h.0.attn.weight", "h.10.attn.weight", "h.0.attn.bias"]),
            ("re:h\\.\\d{2}", &["h.10.attn.weight"]),
            ("re:H|(?i:A)", &["a*b"]),
            ("re:w\\w", &["w\u{e9}/1"]),
            ("re:.*bias$", &["h.0.attn.bias"]),
        ] {
            assert_eq!(found(&json!(pattern), &NAMES).unwrap(), expect, "{pattern}");
        }
        // From the start: not where it stands first.
        assert!(found(&json!("re:attn"), &NAMES).is_err());
        // A glob is not an expression, and its case counts.
        for pattern in ["h.[0-9].attn.weight", "H*", "h.0", "attn", "h.0.attn.weigh(t)", ""] {
            assert!(found(&json!(pattern), &NAMES).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_or_matches_nothing_is_named() {
        let refused = |patterns: Value| found(&patterns, &NAMES).unwrap_err();
        let (detail, cure) = refused(json!(["*", "h.0.atn.bias"]));
        assert_eq!(detail, "include[1]: pattern \"h.0.atn.bias\" matches no tensor");
        assert!(cure.starts_with("did you mean h.0.attn.bias? use a name, a glob"), "{cure}");
        for (text, reason) in [
            ("re:(", "unclosed group"),
            ("re:a)|(b", "unopened group"),
            ("re:(?=a)", "look-around, including look-ahead and look-behind, is not supported"),
            ("re:\\w{1000}", "Compiled regex exceeds size limit of 65536 bytes."),
            ("re:(((a{100}){100}){100}){100}", "Compiled regex exceeds size limit of 65536 bytes."),
        ] {
            let (detail, cure) = refused(json!([text]));
            let expect =
                format!("include[0] is not a regular expression that is read here: {reason}");
            assert_eq!(detail, expect);
            assert!(cure.contains("without look-around"), "{cure}");
        }
        assert_eq!(refused(json!("x".repeat(513))).0, "include[0] is above 512 bytes");
        assert!(found(&json!("x".repeat(512)), &NAMES).unwrap_err().0.contains("matches no"));
        assert_eq!(
            refused(json!(vec!["*"; 257])).0,
            "include is given with 257 patterns, at most 256 are"
        );
        assert_eq!(found(&json!(vec!["*"; 256]), &NAMES).unwrap().len(), NAMES.len());
    }
}
