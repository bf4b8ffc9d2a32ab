//! Options by name, whether they came in a query string or in JSON.
//!
//! A query string is first turned into the JSON object that says the same, so
//! that there is one conversion from options to their meaning and one set of
//! error texts.

use serde_json::{Map, Number, Value};

use super::error::{Error, Kind, Place};

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
}

impl Fields {
    /// Options from a JSON object at `origin`.
    #[must_use]
    pub const fn new(map: Map<String, Value>, origin: Origin) -> Self {
        Self { map, origin }
    }

    /// Options that can only be scalars: a string with a comma is an array, as
    /// in a query string, and so is one without where lists have an entry a slice, of
    /// which there may be one. Other strings stay what they are.
    #[must_use]
    pub fn of_scalars(mut map: Map<String, Value>, origin: Origin) -> Self {
        const LISTS: [&str; 4] = ["scale", "zero_point", "min", "max"];
        for (name, value) in &mut map {
            let is_list = |text: &&str| text.contains(',') || LISTS.contains(&name.as_str());
            if let Some(list) = value.as_str().filter(is_list) {
                *value = query_value(list);
            }
        }
        Self::new(map, origin)
    }

    /// Options from a query string: `a=1&b=x,y`. Numbers and booleans become
    /// their JSON kind, a comma makes an array.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for a name given twice or bytes that are not UTF-8.
    pub fn from_query(query: &str) -> Result<Self, Error> {
        /// Options of a query, of which any route knows far fewer.
        const MAX_OPTIONS: usize = 256;
        let mut map = Map::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if map.len() >= MAX_OPTIONS {
                let detail = format!("the query has more than {MAX_OPTIONS} options");
                return Err(Error::new(Kind::InvalidOption, detail));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            let place = Place::Parameter(name.chars().take(64).collect());
            if map.insert(name, query_value(&value)).is_some() {
                return Err(Error::new(Kind::InvalidOption, "given twice").at(place));
            }
        }
        Ok(Self::new(map, Origin::Query))
    }

    /// Where the options stand.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Gathers options called `name.field` into one object called `name`.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] where `name` itself is given as well.
    pub fn nest(&mut self, name: &str) -> Result<(), Error> {
        let own = |key: &str| Some(key.strip_prefix(name)?.strip_prefix('.')?.to_owned());
        let keys: Vec<String> = self.map.keys().filter(|key| own(key).is_some()).cloned().collect();
        let mut nested = Map::new();
        for key in keys {
            if let (Some(field), Some(value)) = (own(&key), self.map.remove(&key)) {
                nested.insert(field, value);
            }
        }
        if nested.is_empty() {
            return Ok(());
        }
        match self.take(name) {
            None => self.insert(name, Value::Object(nested)),
            // `scheme=int8&scheme.bits=4`: a preset, and fields beside it.
            Some(Value::String(preset)) if !nested.contains_key("preset") => {
                nested.insert("preset".to_owned(), Value::String(preset));
                self.insert(name, Value::Object(nested));
            }
            Some(_) => return Err(self.error(name, "given beside its fields")),
        }
        Ok(())
    }

    /// Adds an option that stood elsewhere.
    pub fn insert(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    /// Takes an option out as it is; `null` counts as absent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// An error about one option.
    #[must_use]
    pub fn error(&self, name: &str, detail: impl Into<String>) -> Error {
        Error::new(Kind::InvalidOption, detail).at(self.origin.place(name))
    }

    /// A boolean.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for any other value.
    pub fn bool(&mut self, name: &str) -> Result<Option<bool>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(self.error(name, "not a boolean").cure("use true or false")),
        }
    }

    /// One of the given words.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for any other value; the cure lists the words.
    pub fn word(
        &mut self,
        name: &str,
        allowed: &[&'static str],
    ) -> Result<Option<&'static str>, Error> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let found = value.as_str().and_then(|text| allowed.iter().find(|word| **word == text));
        match found {
            Some(word) => Ok(Some(word)),
            None => Err(self
                .error(name, "not one of the allowed values")
                .cure(format!("use one of: {}", allowed.join(", ")))),
        }
    }

    /// An integer between the bounds, both included.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for any other value.
    pub fn integer(&mut self, name: &str, min: i64, max: i64) -> Result<Option<i64>, Error> {
        let Some(value) = self.take(name) else { return Ok(None) };
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
        let Some(value) = self.take(name) else { return Ok(None) };
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
        let name: String = name.chars().take(64).collect();
        Err(self.error(&name, detail).cure(format!("known here: {}", known.join(", "))))
    }
}

fn decode(text: &str) -> Result<String, Error> {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Error::new(Kind::InvalidOption, "the query string is not UTF-8"))
}

fn query_value(text: &str) -> Value {
    if text.contains(',') {
        return Value::Array(text.split(',').map(|item| scalar(item.trim())).collect());
    }
    scalar(text)
}

fn scalar(text: &str) -> Value {
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match text.parse::<Number>() {
            Ok(number) => Value::Number(number),
            Err(_) => Value::String(text.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn query(text: &str) -> Fields {
        Fields::from_query(text).unwrap()
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
            text(query("range=foo").word("range", &["a", "b"]).unwrap_err()),
            "range: not one of the allowed values; use one of: a, b"
        );
    }

    #[test]
    fn lists_of_scalars_are_strings() {
        let map = json!({"scale": "0.5", "min": "-1,2", "zero_point": "x", "bits": "8"});
        let mut fields =
            Fields::of_scalars(map.as_object().unwrap().clone(), Origin::Body(String::new()));
        assert_eq!(fields.numbers("scale"), Ok(Some(vec![0.5])));
        assert_eq!(fields.numbers("min"), Ok(Some(vec![-1.0, 2.0])));
        assert!(fields.integers("zero_point").is_err());
        assert!(fields.integer("bits", 2, 16).is_err());
    }

    #[test]
    fn what_is_left_is_refused() {
        let error = query("bitz=1").finish(&["bits"]).unwrap_err();
        assert_eq!(error.to_string(), "bitz: unknown option");
        assert_eq!(error.cure, "known here: bits");
        assert_eq!(Fields::from_query("a=1&a=2").unwrap_err().to_string(), "a: given twice");
        assert!(Fields::from_query("a=%ff").is_err());
    }
}
