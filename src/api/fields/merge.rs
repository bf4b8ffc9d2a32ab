//! Options that belong together, and those of a query beside a body.

use serde_json::{Map, Value};

use crate::api::error::{Error, Kind, Place};

use super::{Fields, Origin, short};

/// What the fields of a scheme may have before their names.
const PREFIX: &str = "scheme.";

impl Fields {
    /// Calls the fields of the scheme by their own names: `scheme.bits` is `bits`.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for both of those with different values.
    pub(super) fn unprefix(&mut self) -> Result<(), Error> {
        let keys: Vec<_> = self.map.keys().filter(|key| key.starts_with(PREFIX)).cloned().collect();
        for key in keys {
            let Some((value, name)) = self.map.remove(&key).zip(key.strip_prefix(PREFIX)) else {
                continue;
            };
            if self.map.get(name).is_some_and(|own| *own != value) {
                return Err(self.error(&short(&key), format!("contradicts {}", short(name))));
            }
            if self.repeated.remove(&key) {
                self.repeated.insert(name.to_owned());
            }
            self.insert(name, value);
        }
        Ok(())
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

    /// Gathers the options of those names into one object called `name`, unless there are none. The
    /// name of a preset is what `name` itself may be: `scheme=int8&bits=4`.
    pub fn gather(&mut self, name: &str, known: &[&str]) {
        let mut gathered = Map::new();
        for key in known.iter().filter(|key| **key != name) {
            if let Some(value) = self.map.remove(*key) {
                gathered.insert((*key).to_owned(), value);
            }
        }
        match self.take(name) {
            Some(preset) if !gathered.is_empty() => {
                gathered.entry("preset").or_insert(preset);
            }
            Some(preset) => return self.insert(name, preset),
            None if gathered.is_empty() => return,
            None => {}
        }
        self.insert(name, Value::Object(gathered));
    }

    /// Adds what a query says to the options of a body.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`] for an option that the body says otherwise.
    pub fn merge(&mut self, query: Self) -> Result<(), Error> {
        self.repeated.extend(query.repeated);
        for (name, value) in query.map {
            match self.take(&name) {
                None => {
                    self.insert(&name, value);
                    self.asked.insert(name);
                }
                Some(own) if name == "scheme" => {
                    let base = pointer(&self.origin, &name);
                    let scheme = merge_schemes(Some(own), Some(value), &base)?;
                    let scheme = scheme.unwrap_or_default();
                    self.insert(&name, scheme);
                }
                Some(own) if own == value => self.insert(&name, own),
                Some(_) => return Err(contradicts(&name, &pointer(&self.origin, &name))),
            }
        }
        Ok(())
    }
}

/// Where a body says an option.
fn pointer(origin: &Origin, name: &str) -> String {
    match origin.place(&short(name)) {
        Place::Pointer(pointer) | Place::Parameter(pointer) => pointer,
        Place::Header(name) => name.to_owned(),
    }
}

fn contradicts(name: &str, body: &str) -> Error {
    Error::new(Kind::InvalidOption, format!("the query contradicts {body} of the body"))
        .at(Origin::Query.place(&short(name)))
        .cure("say it once: in the body, or in the query")
}

/// The scheme of a body at `base`, its own or a preset, with what a query adds to it.
///
/// # Errors
/// [`Kind::InvalidOption`] for a field that the body says otherwise.
pub fn merge_schemes(
    own: Option<Value>,
    query: Option<Value>,
    base: &str,
) -> Result<Option<Value>, Error> {
    let object = |value: Value| {
        let preset = |value: &Value| Map::from_iter([("preset".to_owned(), value.clone())]);
        value.as_object().cloned().unwrap_or_else(|| preset(&value))
    };
    let (mut scheme, query) = match (own.filter(|own| !own.is_null()), query) {
        (Some(own), Some(query)) => (object(own), object(query)),
        (own, query) => return Ok(own.or(query)),
    };
    for (name, value) in query {
        match scheme.get(&name).filter(|own| !own.is_null()) {
            Some(own) if *own != value => {
                return Err(contradicts(&name, &format!("{base}/{}", short(&name))));
            }
            _ => drop(scheme.insert(name, value)),
        }
    }
    Ok(Some(Value::Object(scheme)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::api::fields::Query;

    use super::*;

    #[test]
    fn a_query_adds_to_a_body_and_contradicts_nothing() {
        let body = json!({"scheme": {"bits": 8}, "sort": "mse", "dtype": null});
        let body = Fields::new(body.as_object().unwrap().clone(), Origin::Body(String::new()));
        let merged = |text: &str| {
            let (mut fields, mut query) =
                (body.clone(), Query::new(text).unwrap().into_fields().unwrap());
            query.gather("scheme", &["preset", "bits", "axis", "scheme"]);
            fields.merge(query).map(|()| fields)
        };
        let mut fields = merged("preset=int4&bits=8&axis=0&sort=mse&dtype=F32&bins=x").unwrap();
        assert_eq!(fields.take("scheme"), Some(json!({"bits": 8, "preset": "int4", "axis": 0})));
        assert_eq!(fields.take("dtype"), Some(json!("F32")));
        let error = fields.integer("bins", 1, 2).unwrap_err();
        assert_eq!(error.place, Some(Place::Parameter("bins".to_owned())));
        for (text, at, body) in [("bits=4", "bits", "/scheme/bits"), ("sort=bits", "sort", "/sort")]
        {
            let error = merged(text).unwrap_err();
            assert_eq!(error.place, Some(Place::Parameter(at.to_owned())), "{text}");
            assert_eq!(error.sentence(), format!("the query contradicts {body} of the body"));
        }
        let both = |own, query| merge_schemes(Some(own), Some(query), "/scheme");
        assert_eq!(both(json!("int8"), json!("int8")), Ok(Some(json!({"preset": "int8"}))));
        assert!(both(json!("int8"), json!("int4")).is_err());
    }
}
