//! Query strings, as people and their libraries write them.

use std::collections::BTreeSet;

use serde_json::{Map, Number, Value};

use crate::api::error::{Error, Kind};

use super::{Fields, Origin};

/// A query, split and decoded: names and texts in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// The pairs of `a=1&b=x,y`.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for bytes that are not UTF-8.
    pub fn new(query: &str) -> Result<Self, Error> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let decoded = |pair: &str| -> Result<_, Error> {
            let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(text)?))
        };
        Ok(Self { pairs: pairs.map(decoded).collect::<Result<_, _>>()? })
    }

    /// Adds a pair, such as a field of a form.
    pub fn push(&mut self, name: String, text: String) {
        self.pairs.push((name, text));
    }

    /// The texts of that name.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(move |(own, _)| own == name).map(|(_, text)| text.as_str())
    }

    /// Takes an option out that is set by its name alone, or by true or false.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for any other value, or when it is given twice.
    pub fn take_flag(&mut self, name: &str) -> Result<bool, Error> {
        let (own, rest) =
            std::mem::take(&mut self.pairs).into_iter().partition(|(own, _)| own == name);
        self.pairs = rest;
        let own = Self { pairs: own };
        match own.pairs.as_slice() {
            [] => Ok(false),
            [(_, text)] if text.is_empty() => Ok(true),
            _ => Ok(own.into_fields()?.bool(name)?.unwrap_or_default()),
        }
    }

    /// The options that it says. Numbers and booleans become their JSON kind. A list has commas, with brackets
    /// around it or without, or is a name given several times: `a=1&a=2`, `a[]=1&a[]=2`. A field of the scheme may be
    /// called `scheme.bits` as well as `bits`.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for both of those with different values, and for too many options.
    pub fn into_fields(self) -> Result<Fields, Error> {
        /// Options of a query, of which any route knows far fewer.
        const MAX_OPTIONS: usize = 256;
        let mut fields = Fields::new(Map::new(), Origin::Query);
        for (name, text) in self.pairs {
            if fields.map.len() >= MAX_OPTIONS {
                let detail = format!("the query has more than {MAX_OPTIONS} options");
                return Err(Error::new(Kind::InvalidOption, detail));
            }
            add(&mut fields.map, &mut fields.repeated, &name, value(&text));
        }
        fields.unprefix()?;
        Ok(fields)
    }
}

/// Adds an option to `map`, or a value to one that is there.
fn add(map: &mut Map<String, Value>, repeated: &mut BTreeSet<String>, name: &str, value: Value) {
    let list = |value: Value| value.as_array().cloned().unwrap_or_else(|| vec![value]);
    let (name, value) = match name.strip_suffix("[]") {
        Some(name) => (name, Value::Array(list(value))),
        None => (name, value),
    };
    let value = match map.remove(name) {
        None => value,
        Some(before) => {
            repeated.insert(name.to_owned());
            let mut items = list(before);
            items.extend(list(value));
            Value::Array(items)
        }
    };
    map.insert(name.to_owned(), value);
}

fn decode(text: &str) -> Result<String, Error> {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Error::new(Kind::InvalidOption, "the query string is not UTF-8"))
}

/// A value as its text says it.
pub(super) fn value(text: &str) -> Value {
    let within = |open, close| text.trim().strip_prefix(open)?.strip_suffix(close);
    let bracketed = within('[', ']').or_else(|| within('(', ')'));
    match bracketed {
        // Python writes a tuple of one as `(3,)`.
        Some(list) => {
            let list = list.trim().strip_suffix(',').unwrap_or(list).trim();
            let items = items(list).into_iter().filter(|_| !list.is_empty());
            Value::Array(items.map(|item| scalar(unquoted(item.trim()))).collect())
        }
        None => match items(text).as_slice() {
            [_] => scalar(text),
            items => Value::Array(items.iter().map(|item| scalar(item.trim())).collect()),
        },
    }
}

/// What commas separate, but not those in brackets: in a regular expression they have a meaning of their own.
fn items(text: &str) -> Vec<&str> {
    let (mut depth, mut escaped) = (0_usize, false);
    let separates = |c: char| {
        match c {
            _ if escaped => {}
            '[' | '(' | '{' => depth += 1,
            ']' | ')' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        c == ',' && depth == 0
    };
    text.split(separates).collect()
}

fn unquoted(item: &str) -> &str {
    let within = |quote| item.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(item)
}

fn scalar(text: &str) -> Value {
    if text.eq_ignore_ascii_case("true") {
        return Value::Bool(true);
    }
    if text.eq_ignore_ascii_case("false") {
        return Value::Bool(false);
    }
    match text.parse::<Number>() {
        Ok(number) => Value::Number(number),
        Err(_) => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn take(query: &str, name: &str) -> Option<Value> {
        Query::new(query).unwrap().into_fields().unwrap().take(name)
    }

    #[test]
    fn values_are_read_as_libraries_write_them() {
        for (query, expect) in [
            ("a=True", json!(true)),
            ("a=TRUE", json!(true)),
            ("a=False", json!(false)),
            ("a=x", json!("x")),
            ("a=1,2", json!([1, 2])),
            ("a=1&a=2", json!([1, 2])),
            ("a=x,y&a=z", json!(["x", "y", "z"])),
            ("a[]=1", json!([1])),
            ("a%5B%5D=1&a%5B%5D=2", json!([1, 2])),
            ("a=[2,+3]", json!([2, 3])),
            ("a=(2,%203)", json!([2, 3])),
            ("a=(3,)", json!([3])),
            ("a=()", json!([])),
            ("a=[%22x%22,'y']", json!(["x", "y"])),
            ("a=x%7B1,2%7D,y(,", json!(["x{1,2}", "y(,"])),
            ("a=%5C(,y", json!(["\\(", "y"])),
            ("a=),1", json!([")", 1])),
            ("a=1,", json!([1, ""])),
            ("scheme.a=4", json!(4)),
            ("scheme.a=4&a=4", json!(4)),
            ("scheme.a=4&scheme.a=5", json!([4, 5])),
        ] {
            assert_eq!(take(query, "a"), Some(expect), "{query}");
        }
    }

    #[test]
    fn one_value_is_given_once_and_in_one_way() {
        let error = |query: &str| {
            let fields = Query::new(query).unwrap().into_fields();
            fields.and_then(|mut fields| fields.integer("a", 0, 9)).unwrap_err().to_string()
        };
        assert_eq!(error("a=1&a=1"), "a: given twice");
        assert_eq!(error("a=1,2"), "a: not an integer in the allowed range");
        assert_eq!(error("a=1&scheme.a=2"), "scheme.a: contradicts a");
    }

    #[test]
    fn truth_is_a_number_in_a_query_only() {
        let mut query = Query::new("a=1&b=0&c=2").unwrap().into_fields().unwrap();
        assert_eq!(query.bool("a"), Ok(Some(true)));
        assert_eq!(query.bool("b"), Ok(Some(false)));
        assert!(query.bool("c").is_err());
        let map = json!({"a": 1}).as_object().unwrap().clone();
        assert!(Fields::new(map, Origin::Body(String::new())).bool("a").is_err());
    }

    #[test]
    fn a_flag_is_taken_out() {
        use crate::api::error::Place;
        let taken = |text: &str| {
            let mut query = Query::new(text).unwrap();
            let flag = query.take_flag("pretty").map_err(|error| error.place);
            flag.map(|flag| (query, flag))
        };
        let rest = |text: &str, flag| Ok((Query::new(text).unwrap(), flag));
        assert_eq!(taken("a=1&b=2"), rest("a=1&b=2", false));
        assert_eq!(taken("a=1&pretty=true&b=2"), rest("a=1&b=2", true));
        assert_eq!(taken("pretty"), rest("", true));
        assert_eq!(taken("pretty=False&a"), rest("a", false));
        let place = Some(Place::Parameter("pretty".to_owned()));
        assert_eq!(taken("pretty=maybe"), Err(place.clone()));
        assert_eq!(taken("pretty=1&pretty=1"), Err(place));
    }
}
