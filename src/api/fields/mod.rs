//! Options by name, whether they came in a query string or in JSON.
//!
//! A query string is first turned into the JSON object that says the same, so
//! that there is one conversion from options to their meaning and one set of
//! error texts.

pub mod field;
mod merge;
mod query;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use quantd_core::tensor::DType;
use quantd_core::word::Word;

use super::error::{Error, Kind, Place};
use super::guess::hint;

pub use merge::merge_schemes;
pub use query::Query;

/// Where the options stand in the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// In the query string.
    #[default]
    Query,
    /// In the body, below this JSON pointer.
    Body(String),
}

impl Origin {
    /// The place of a field.
    #[must_use]
    pub fn place(&self, field: &str) -> Place {
        match self {
            Self::Query => Place::Parameter(field.to_owned()),
            Self::Body(base) => Place::Pointer(format!("{base}/{field}")),
        }
    }
}

/// Options that have not been read yet. Each is taken out once; what is left
/// in the end is unknown and refused.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    map: Map<String, Value>,
    origin: Origin,
    /// Options that a query says beside a body.
    asked: BTreeSet<String>,
    /// Options that are lists because they were given more than once.
    repeated: BTreeSet<String>,
}

impl Fields {
    /// Options from a JSON object at `origin`.
    #[must_use]
    pub const fn new(map: Map<String, Value>, origin: Origin) -> Self {
        Self { map, origin, asked: BTreeSet::new(), repeated: BTreeSet::new() }
    }

    /// Options that can only be scalars: a string with a comma is an array, as
    /// in a query string, and so is one without where lists have an entry a slice, of
    /// which there may be one. Other strings stay what they are.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for `scheme.bits` and `bits` with different values.
    pub fn of_scalars(map: Map<String, Value>, origin: Origin) -> Result<Self, Error> {
        const LISTS: [&str; 4] = ["scale", "zero_point", "min", "max"];
        let mut fields = Self::new(map, origin);
        fields.unprefix()?;
        for (name, value) in &mut fields.map {
            let is_list = |text: &&str| text.contains(',') || LISTS.contains(&name.as_str());
            if let Some(list) = value.as_str().filter(is_list) {
                *value = query::value(list);
            }
        }
        Ok(fields)
    }

    /// Where the options stand.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Takes the options of those names out, as they are.
    #[must_use]
    pub fn split(&mut self, names: &[&str]) -> Self {
        let mut part = Self::new(Map::new(), self.origin.clone());
        for name in names {
            if let Some(value) = self.map.remove(*name) {
                part.insert(name, value);
            }
        }
        part
    }

    /// Whether there are no options.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Whether an option was said by a query, beside a body.
    #[must_use]
    pub fn is_asked(&self, name: &str) -> bool {
        self.asked.contains(name)
    }

    /// Where an option was said.
    #[must_use]
    pub fn place(&self, name: &str) -> Place {
        if self.is_asked(name) { Origin::Query.place(name) } else { self.origin.place(name) }
    }

    /// Where an entry of an option that is a list was said.
    #[must_use]
    pub fn place_of_entry(&self, name: &str, index: usize) -> Place {
        match self.place(name) {
            Place::Pointer(list) => Place::Pointer(format!("{list}/{index}")),
            place @ (Place::Parameter(_) | Place::Header(_)) => place,
        }
    }

    /// Whether an option stands in a query.
    fn is_of_query(&self, name: &str) -> bool {
        self.origin == Origin::Query || self.is_asked(name)
    }

    /// Adds an option that stood elsewhere.
    pub fn insert(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    /// Takes an option out as it is; `null` counts as absent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Takes an option out that is one value.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] where it was given more than once.
    pub fn scalar(&mut self, name: &str) -> Result<Option<Value>, Error> {
        match self.take(name) {
            Some(Value::Array(_)) if self.repeated.contains(name) => {
                Err(self.error(name, "given twice").cure("give it once"))
            }
            value => Ok(value),
        }
    }

    /// An error about one option.
    #[must_use]
    pub fn error(&self, name: &str, detail: impl Into<String>) -> Error {
        Error::new(Kind::InvalidOption, detail).at(self.place(name))
    }

    /// The error about an option that is not there, which may be there under another name.
    #[must_use]
    pub fn missing(&self, name: &str, known: &[&str]) -> Error {
        match self.map.keys().find(|key| !known.contains(&key.as_str())) {
            None => self.error(name, "missing"),
            Some(surplus) => {
                let surplus = short(surplus);
                self.error(name, format!("missing; {surplus} is not known here")).cure(hint(
                    &surplus,
                    known,
                    "known here",
                ))
            }
        }
    }

    /// A boolean.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for any other value.
    pub fn bool(&mut self, name: &str) -> Result<Option<bool>, Error> {
        let is_query = self.is_of_query(name);
        match self.scalar(name)? {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            // What some languages write into a query for true and false.
            Some(value) if is_query && (value == 1 || value == 0) => Ok(Some(value == 1)),
            Some(_) => Err(self.error(name, "not a boolean").cure("use true or false")),
        }
    }

    /// A word of a closed set.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for any other value; the cure lists the words.
    pub fn word<W: Word>(&mut self, name: &str) -> Result<Option<W>, Error> {
        Ok(self.one_of(name, &W::names())?.and_then(W::find))
    }

    /// One of the given words.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for any other value; the cure lists the words.
    pub fn one_of(
        &mut self,
        name: &str,
        allowed: &[&'static str],
    ) -> Result<Option<&'static str>, Error> {
        let Some(value) = self.scalar(name)? else { return Ok(None) };
        let text = value.as_str();
        match text.and_then(|text| allowed.iter().find(|word| **word == text)) {
            Some(word) => Ok(Some(word)),
            None => Err(self.error(name, "not one of the allowed values").cure(hint(
                text.unwrap_or_default(),
                allowed,
                "use one of",
            ))),
        }
    }

    /// One of the given element types, by any name that it has.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for any other value; the cure lists the types.
    pub fn dtype(&mut self, name: &str, allowed: &[DType]) -> Result<Option<DType>, Error> {
        let named = self.map.get(name).and_then(Value::as_str).and_then(DType::parse);
        if let Some(dtype) = named.filter(|dtype| allowed.contains(dtype)) {
            drop(self.take(name));
            return Ok(Some(dtype));
        }
        let names: Vec<_> = allowed.iter().map(|dtype| dtype.name()).collect();
        Ok(self.one_of(name, &names)?.and_then(DType::from_name))
    }

    /// An integer between the bounds, both included.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for any other value.
    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Result<Option<i64>, Error> {
        let Some(value) = self.scalar(name)? else { return Ok(None) };
        match value.as_i64() {
            Some(value) if (min..=max).contains(&value) => Ok(Some(value)),
            _ => Err(self
                .error(name, "not an integer in the allowed range")
                .cure(format!("use an integer from {min} to {max}"))),
        }
    }

    /// A finite number between the bounds, both included.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for any other value.
    pub fn number(&mut self, name: &str, min: f64, max: f64) -> Result<Option<f64>, Error> {
        let Some(value) = self.scalar(name)? else { return Ok(None) };
        match value.as_f64() {
            Some(value) if (min..=max).contains(&value) => Ok(Some(value)),
            _ => Err(self
                .error(name, "not a number in the allowed range")
                .cure(format!("use a number from {min} to {max}"))),
        }
    }

    /// Finite numbers: one, or arrays of them nested anyhow, in order.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for anything else in them, or for none.
    pub fn numbers(&mut self, name: &str) -> Result<Option<Vec<f64>>, Error> {
        self.list(name, "a finite number or an array of them", &|value| {
            value.as_f64().filter(|value| value.is_finite())
        })
    }

    /// Integers: one, or arrays of them nested anyhow, in order.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for anything else in them, or for none.
    pub fn integers(&mut self, name: &str) -> Result<Option<Vec<i64>>, Error> {
        self.list(name, "an integer or an array of them", &|value| value.as_i64())
    }

    /// Texts: one, or an array of them.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for anything else.
    pub fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Error> {
        let is_query = self.is_of_query(name);
        let items = match self.take(name) {
            None => return Ok(None),
            Some(Value::Array(items)) => items,
            Some(item) => vec![item],
        };
        let text = |(i, item)| match item {
            Value::String(text) => Ok(text),
            // In a query all is text.
            Value::Number(_) | Value::Bool(_) if is_query => Ok(item.to_string()),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => Err(Error::new(Kind::InvalidOption, "not a text")
                .at(self.place_of_entry(name, i))
                .cure("use a string, or an array of strings")),
        };
        items.into_iter().enumerate().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// Sizes: non-negative integers, one or an array of them; an empty array is allowed.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for anything else.
    pub fn sizes(&mut self, name: &str) -> Result<Option<Vec<usize>>, Error> {
        let value = match self.take(name) {
            None => return Ok(None),
            Some(Value::Array(items)) => items,
            // `shape=` in a query: no dimensions, a scalar.
            Some(Value::String(text)) if text.is_empty() => Vec::new(),
            Some(value) => vec![value],
        };
        let sizes =
            value.iter().map(|size| size.as_u64().and_then(|size| usize::try_from(size).ok()));
        let sizes: Option<Vec<usize>> = sizes.collect();
        match sizes {
            Some(sizes) => Ok(Some(sizes)),
            None => Err(self
                .error(name, "not a list of sizes")
                .cure("use non-negative integers, such as [2, 3] or 2,3")),
        }
    }

    fn list<T>(
        &mut self,
        name: &str,
        what: &str,
        convert: &dyn Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Error> {
        fn flatten<T>(
            value: &Value,
            convert: &dyn Fn(&Value) -> Option<T>,
            out: &mut Vec<T>,
        ) -> bool {
            match value {
                Value::Array(items) => items.iter().all(|item| flatten(item, convert, out)),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Object(_) => convert(value).map(|value| out.push(value)).is_some(),
            }
        }
        let Some(value) = self.take(name) else { return Ok(None) };
        let mut out = Vec::new();
        // `read_value` has bounded the nesting.
        if flatten(&value, convert, &mut out) && !out.is_empty() {
            return Ok(Some(out));
        }
        Err(self.error(name, format!("not {what}")))
    }

    /// Refuses what was not taken.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] names the first option left and lists `known`.
    pub fn finish(self, known: &[&str]) -> Result<(), Error> {
        // `null` counts as absent, but not under a name that nothing has.
        let is_left =
            |(name, value): &(&String, &Value)| !value.is_null() || !known.contains(&name.as_str());
        let Some((name, _)) = self.map.iter().find(is_left) else { return Ok(()) };
        let detail =
            if known.contains(&name.as_str()) { "does not apply here" } else { "unknown option" };
        Err(self.error(&short(name), detail).cure(hint(name, known, "known here")))
    }
}

/// As much of a caller's word as a message repeats.
pub(super) fn short(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn query(text: &str) -> Fields {
        Query::new(text).unwrap().into_fields().unwrap()
    }

    #[test]
    fn a_query_says_what_json_says() {
        let mut fields =
            query("bits=4&packed=true&block_shape=2,3&preset=int8&min=-0.5&x=%2B1&shape=");
        assert_eq!(fields.integer("bits", 2, 16), Ok(Some(4)));
        assert_eq!(fields.bool("packed"), Ok(Some(true)));
        assert_eq!(fields.sizes("block_shape"), Ok(Some(vec![2, 3])));
        assert_eq!(fields.take("preset"), Some(json!("int8")));
        assert_eq!(fields.numbers("min"), Ok(Some(vec![-0.5])));
        assert_eq!(fields.take("x"), Some(json!("+1")));
        assert_eq!(fields.sizes("shape"), Ok(Some(vec![])));
        assert_eq!(fields.finish(&[]), Ok(()));
    }

    #[test]
    fn wrong_values_are_named() {
        let text = |error: Error| format!("{error}; {}", error.cure);
        assert_eq!(
            text(query("bits=x").integer("bits", 2, 16).unwrap_err()),
            "bits: not an integer in the allowed range; use an integer from 2 to 16"
        );
        for bits in ["-1", "0", "2147483648", "9223372036854775808", "1e400", "8.0", "true", "8,8"]
        {
            assert!(query(&format!("bits={bits}")).integer("bits", 2, 16).is_err(), "{bits}");
        }
        let body = json!({"bits": "8"});
        let mut body =
            Fields::new(body.as_object().unwrap().clone(), Origin::Body("/scheme".into()));
        assert_eq!(
            body.integer("bits", 2, 16).unwrap_err().place,
            Some(Place::Pointer("/scheme/bits".into()))
        );
        assert_eq!(
            text(query("range=foo").one_of("range", &["a", "b"]).unwrap_err()),
            "range: not one of the allowed values; use one of: a, b"
        );
        assert_eq!(
            text(query("range=minmax").one_of("range", &["mse", "min_max"]).unwrap_err()),
            "range: not one of the allowed values; did you mean min_max? use one of: mse, min_max"
        );
    }

    #[test]
    fn texts_are_one_or_a_list_and_in_a_query_anything() {
        let texts = |text: &str| query(text).texts("a").unwrap().unwrap();
        assert_eq!(texts("a=x"), ["x"]);
        assert_eq!(texts("a=0,true&a=*.w,y"), ["0", "true", "*.w", "y"]);
        assert_eq!(texts("a=re:(x%7Cy,z)%5B,%5D%7B1,2%7D$,w"), ["re:(x|y,z)[,]{1,2}$", "w"]);
        let map = json!({"a": ["x", "y"], "b": "x", "c": ["x", 1], "d": {}, "e": null});
        let mut body =
            Fields::new(map.as_object().unwrap().clone(), Origin::Body("/scheme".into()));
        assert_eq!(body.texts("a"), Ok(Some(vec!["x".to_owned(), "y".to_owned()])));
        assert_eq!(body.texts("b"), Ok(Some(vec!["x".to_owned()])));
        let error = body.texts("c").unwrap_err();
        assert_eq!(error.sentence(), "c[1] is not a text");
        assert!(body.texts("d").is_err());
        assert_eq!(body.texts("e"), Ok(None));
    }

    #[test]
    fn lists_of_scalars_are_strings() {
        let map = json!({"scale": "0.5", "min": "-1,2", "zero_point": "x", "scheme.bits": "8"});
        let mut fields =
            Fields::of_scalars(map.as_object().unwrap().clone(), Origin::Body(String::new()))
                .unwrap();
        assert_eq!(fields.numbers("scale"), Ok(Some(vec![0.5])));
        assert_eq!(fields.numbers("min"), Ok(Some(vec![-1.0, 2.0])));
        assert!(fields.integers("zero_point").is_err());
        assert!(fields.integer("bits", 2, 16).is_err());
    }

    #[test]
    fn what_is_left_is_refused() {
        let error = query("bitz=1").finish(&["bits"]).unwrap_err();
        assert_eq!(error.to_string(), "bitz: unknown option");
        assert_eq!(error.cure, "did you mean bits? known here: bits");
        assert!(Query::new("a=%ff").is_err());
        let map = json!({"tensor": [1]}).as_object().unwrap().clone();
        let fields = Fields::new(map, Origin::Body(String::new()));
        let error = fields.missing("data", &["data", "tensors"]);
        assert_eq!(error.sentence(), "data is missing; tensor is not known here");
        assert_eq!(error.cure, "did you mean tensors? known here: data, tensors");
    }
}
