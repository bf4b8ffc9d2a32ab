//! Options as values: one definition parses an option, names it in messages and describes it.

mod kinds;

use std::borrow::Cow;

use utoipa::ToSchema;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{
    AdditionalProperties, AllOfBuilder, Array, Object, ObjectBuilder, OneOfBuilder, SchemaType,
    Type,
};
use utoipa::openapi::{Ref, RefOr, Schema};

use crate::api::error::Error;
use crate::api::name::PATTERN;

use super::Fields;

pub use kinds::{Flag, Integer, Integers, Numbers, Real, Reals, Sizes, Types, Words};

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Field<K> {
    /// Its name in queries and in JSON.
    pub name: &'static str,
    /// What it means, and its default.
    pub summary: &'static str,
    /// What it may be.
    pub kind: K,
}

/// What an option may be.
pub trait Kind {
    /// What it is read as.
    type Value;

    /// Takes the option out.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`](crate::api::error::Kind::InvalidOption) for any other value.
    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<Self::Value>, Error>;

    /// The schema of its values.
    fn form(&self) -> Form;
}

/// The values of an option, as schemas say it.
#[expect(missing_debug_implementations, reason = "schemas have none")]
#[expect(clippy::large_enum_variant, reason = "few, and not for long")]
pub enum Form {
    /// One value.
    Scalar(Object),
    /// Values with commas, or an array in JSON.
    List(Array),
    /// One value that a component describes.
    Named(Component),
    /// The same in JSON; in a query values with commas.
    NamedList(Component, Array),
    /// An array in JSON of values that a component describes; in a query values with commas.
    ListOf(Component, Array, Array),
    /// What one component describes in JSON, and another in a query.
    Either(Component, Component),
    /// Values that a component describes, by name.
    Map(Component, Object),
}

/// A schema that others refer to by its name.
#[derive(Clone, Copy, Debug)]
pub struct Component {
    name: fn() -> Cow<'static, str>,
    schema: fn() -> RefOr<Schema>,
    below: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl Component {
    /// That of a type.
    #[must_use]
    pub const fn of<S: ToSchema>() -> Self {
        Self { name: S::name, schema: S::schema, below: S::schemas }
    }

    fn reference(self) -> Ref {
        Ref::from_schema_name((self.name)())
    }

    /// Adds it and what it refers to.
    fn add_to(self, schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push(((self.name)().into_owned(), (self.schema)()));
        (self.below)(schemas);
    }
}

/// An option of any kind, to be listed and described.
pub trait Described: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// What it means.
    fn summary(&self) -> &'static str;

    /// The schema of its values.
    fn form(&self) -> Form;
}

impl<K: Kind + Sync> Described for Field<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn summary(&self) -> &'static str {
        self.summary
    }

    fn form(&self) -> Form {
        self.kind.form()
    }
}

/// A member of JSON that is read where it stands, rather than as an option.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub summary: &'static str,
    /// What it holds.
    pub form: fn() -> Form,
}

impl Described for Member {
    fn name(&self) -> &'static str {
        self.name
    }

    fn summary(&self) -> &'static str {
        self.summary
    }

    fn form(&self) -> Form {
        (self.form)()
    }
}

/// What a member holds that a component describes.
#[must_use]
pub fn named<S: ToSchema>() -> Form {
    Form::Named(Component::of::<S>())
}

/// A name that something is kept under.
#[must_use]
pub fn name() -> Form {
    let name = ObjectBuilder::new().schema_type(Type::String);
    Form::Scalar(name.pattern(Some(PATTERN)).build())
}

/// A text.
#[must_use]
pub fn text() -> Form {
    Form::Scalar(ObjectBuilder::new().schema_type(Type::String).build())
}

/// The same, one by name.
#[must_use]
pub fn by_name<S: ToSchema>() -> Form {
    let component = Component::of::<S>();
    let values = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(ObjectBuilder::new().schema_type(Type::String)))
        .additional_properties(Some(component.reference()));
    Form::Map(component, values.build())
}

/// Options and members of JSON, each a constant that its meaning documents:
/// `BITS: "bits", Integer = Integer { .. }, "Bits of a code.";`, or `DATA: "data", in JSON form, "The numbers.";`.
macro_rules! fields {
    () => {};
    ($visibility:vis $constant:ident: $name:literal, in JSON $form:expr, $summary:literal; $($rest:tt)*) => {
        #[doc = $summary]
        $visibility const $constant: $crate::api::fields::field::Member =
            $crate::api::fields::field::Member { name: $name, summary: $summary, form: $form };
        $crate::api::fields::field::fields! { $($rest)* }
    };
    ($visibility:vis $constant:ident: $name:literal, $kind:ty = $value:expr, $summary:literal; $($rest:tt)*) => {
        #[doc = $summary]
        $visibility const $constant: $crate::api::fields::field::Field<$kind> =
            $crate::api::fields::field::Field { name: $name, summary: $summary, kind: $value };
        $crate::api::fields::field::fields! { $($rest)* }
    };
}
pub(crate) use fields;

/// Options that stand together, in the order in which messages list them.
pub type Table = &'static [&'static dyn Described];

/// The names of the options of tables.
#[must_use]
pub fn names(tables: &[Table]) -> Vec<&'static str> {
    tables.iter().copied().flatten().map(|field| field.name()).collect()
}

/// The options of a table as parameters of a query.
#[must_use]
pub fn parameters(table: Table) -> Vec<Parameter> {
    let parameter = |field: &&dyn Described| {
        let parameter = ParameterBuilder::new()
            .name(field.name())
            .parameter_in(ParameterIn::Query)
            .description(Some(field.summary()));
        match field.form() {
            Form::Scalar(value) => parameter.schema(Some(value)),
            Form::Named(component) | Form::Either(_, component) => {
                parameter.schema(Some(component.reference()))
            }
            Form::List(list) | Form::NamedList(_, list) | Form::ListOf(_, _, list) => {
                parameter.schema(Some(list)).explode(Some(false))
            }
            Form::Map(_, values) => parameter.schema(Some(values)),
        }
        .build()
    };
    table.iter().map(parameter).collect()
}

/// A member of an object in JSON that is there.
fn required(field: &dyn Described) -> RefOr<Schema> {
    let summary = field.summary().to_owned();
    match field.form() {
        Form::Scalar(mut value) | Form::Map(_, mut value) => {
            value.description = Some(summary);
            value.into()
        }
        Form::List(mut list) | Form::ListOf(_, mut list, _) => {
            list.description = Some(summary);
            RefOr::T(Schema::Array(list))
        }
        Form::Named(component) | Form::NamedList(component, _) | Form::Either(component, _) => {
            let mut reference = component.reference();
            reference.description = summary;
            reference.into()
        }
    }
}

/// A member of an object in JSON, which may be left out or `null`.
fn member(field: &dyn Described) -> RefOr<Schema> {
    match required(field) {
        RefOr::T(Schema::Object(mut value)) => {
            value.schema_type = nullable(value.schema_type);
            value.into()
        }
        RefOr::T(Schema::Array(mut list)) => {
            list.schema_type = nullable(list.schema_type);
            RefOr::T(Schema::Array(list))
        }
        other @ (RefOr::Ref(_) | RefOr::T(_)) => {
            let null = ObjectBuilder::new().schema_type(Type::Null);
            OneOfBuilder::new().item(other).item(null).into()
        }
    }
}

fn nullable(kind: SchemaType) -> SchemaType {
    match kind {
        SchemaType::Type(kind) => SchemaType::from_iter([kind, Type::Null]),
        other @ (SchemaType::Array(_) | SchemaType::AnyValue) => other,
    }
}

/// What else an object of options is.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// A component whose members it has as well.
    pub flattened: Option<Component>,
    /// Whether other members are refused.
    pub closed: bool,
    /// Members that may not be left out.
    pub required: &'static [&'static str],
}

impl How {
    /// An object of nothing but optional members, beside which others may stand.
    pub const OPEN: Self = Self { flattened: None, closed: false, required: &[] };
    /// The same, beside which none may.
    pub const CLOSED: Self = Self { closed: true, ..Self::OPEN };
}

/// An object of options.
#[must_use]
pub fn object(description: &str, tables: &[Table], how: How) -> RefOr<Schema> {
    let mut object = ObjectBuilder::new();
    for field in tables.iter().copied().flatten() {
        object = match how.required.contains(&field.name()) {
            true => object.property(field.name(), required(*field)).required(field.name()),
            false => object.property(field.name(), member(*field)),
        };
    }
    if how.closed {
        object = object.additional_properties(Some(AdditionalProperties::FreeForm(false)));
    }
    match how.flattened {
        None => object.description(Some(description)).into(),
        Some(component) => AllOfBuilder::new()
            .item(component.reference())
            .item(object)
            .description(Some(description))
            .into(),
    }
}

/// Adds the components that such an object refers to.
pub fn add_components(tables: &[Table], how: How, schemas: &mut Vec<(String, RefOr<Schema>)>) {
    if let Some(component) = how.flattened {
        component.add_to(schemas);
    }
    for field in tables.iter().copied().flatten() {
        match field.form() {
            Form::Scalar(_) | Form::List(_) => {}
            Form::Named(component)
            | Form::NamedList(component, _)
            | Form::Either(component, _)
            | Form::ListOf(component, ..)
            | Form::Map(component, _) => component.add_to(schemas),
        }
    }
}

/// Schemas of objects whose members are tables: `pub Name: "description", how, tables`.
macro_rules! objects {
    ($($visibility:vis $name:ident: $description:literal, $how:expr, $($table:expr),+;)+) => {$(
        #[doc = $description]
        #[derive(Debug, serde::Serialize)]
        $visibility struct $name;

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $crate::api::fields::field::object($description, &[$($table),+], $how)
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn schemas(
                schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>,
            ) {
                $crate::api::fields::field::add_components(&[$($table),+], $how, schemas);
            }
        }
    )+};
}
pub(crate) use objects;

impl Fields {
    /// Takes an option out.
    ///
    /// # Errors
    /// [`Kind::InvalidOption`](crate::api::error::Kind::InvalidOption) for what it may not be.
    pub fn get<K: Kind>(&mut self, field: &Field<K>) -> Result<Option<K::Value>, Error> {
        field.kind.read(self, field.name)
    }
}
