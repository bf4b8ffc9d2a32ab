//! What options may be.

use std::marker::PhantomData;

use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};

use crate::api::error::Error;
use crate::api::fields::Fields;
use quantd_core::tensor::DType;
use quantd_core::word::Word;

use super::{Component, Form, Kind};

fn number() -> ObjectBuilder {
    let double = SchemaFormat::KnownFormat(KnownFormat::Double);
    ObjectBuilder::new().schema_type(Type::Number).format(Some(double))
}

fn integer() -> ObjectBuilder {
    let int64 = SchemaFormat::KnownFormat(KnownFormat::Int64);
    ObjectBuilder::new().schema_type(Type::Integer).format(Some(int64))
}

/// True or false.
#[derive(Clone, Copy, Debug)]
pub struct Flag;

impl Kind for Flag {
    type Value = bool;

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<bool>, Error> {
        fields.bool(name)
    }

    fn form(&self) -> Form {
        Form::Scalar(ObjectBuilder::new().schema_type(Type::Boolean).build())
    }
}

/// An integer between bounds, both included.
#[derive(Clone, Copy, Debug)]
pub struct Integer {
    /// Smallest.
    pub min: i64,
    /// Largest.
    pub max: i64,
    /// Whether the bounds are what the option means, rather than what can be held.
    pub bounded: bool,
}

impl Kind for Integer {
    type Value = i64;

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<i64>, Error> {
        fields.integer(name, self.min, self.max)
    }

    fn form(&self) -> Form {
        let integer = integer();
        let integer = match self.bounded {
            true => integer.minimum(Some(self.min)).maximum(Some(self.max)),
            false if self.min > 0 => integer.minimum(Some(self.min)),
            false => integer,
        };
        Form::Scalar(integer.build())
    }
}

/// A finite number between bounds, both included.
#[derive(Clone, Copy, Debug)]
pub struct Real {
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Kind for Real {
    type Value = f64;

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<f64>, Error> {
        fields.number(name, self.min, self.max)
    }

    fn form(&self) -> Form {
        let bound = |end: f64| (end.abs() < f64::MAX).then_some(end);
        Form::Scalar(number().minimum(bound(self.min)).maximum(bound(self.max)).build())
    }
}

/// A word of a closed set.
#[derive(Clone, Copy, Debug)]
pub struct Words<W> {
    component: Component,
    set: PhantomData<W>,
}

impl<W: Word> Words<W> {
    /// The words that the schema `S` lists.
    #[must_use]
    pub const fn of<S: ToSchema>() -> Self {
        Self { component: Component::of::<S>(), set: PhantomData }
    }
}

impl<W: Word> Kind for Words<W> {
    type Value = W;

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<W>, Error> {
        fields.word(name)
    }

    fn form(&self) -> Form {
        Form::Named(self.component)
    }
}

/// One of these element types, by any name that it has.
#[derive(Clone, Copy, Debug)]
pub struct Types {
    /// The types.
    pub types: &'static [DType],
    /// The schema that lists them.
    pub component: Component,
}

impl Kind for Types {
    type Value = DType;

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<DType>, Error> {
        fields.dtype(name, self.types)
    }

    fn form(&self) -> Form {
        Form::Named(self.component)
    }
}

/// Sizes: non-negative integers.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// How many there are, if that is fixed.
    pub count: Option<usize>,
    /// Most of them.
    pub most: Option<usize>,
}

impl Kind for Sizes {
    type Value = Vec<usize>;

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<Vec<usize>>, Error> {
        fields.sizes(name)
    }

    fn form(&self) -> Form {
        let list = ArrayBuilder::new().items(integer().minimum(Some(0)));
        Form::List(list.min_items(self.count).max_items(self.count.or(self.most)).build())
    }
}

/// Numbers: one, or one a slice.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// What describes them in JSON.
    pub component: Component,
}

impl Kind for Numbers {
    type Value = Vec<f64>;

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<Vec<f64>>, Error> {
        fields.numbers(name)
    }

    fn form(&self) -> Form {
        Form::NamedList(self.component, ArrayBuilder::new().items(number()).build())
    }
}

/// Integers: one, or one a slice.
#[derive(Clone, Copy, Debug)]
pub struct Integers {
    /// What describes them in JSON.
    pub component: Component,
}

impl Kind for Integers {
    type Value = Vec<i64>;

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<Vec<i64>>, Error> {
        fields.integers(name)
    }

    fn form(&self) -> Form {
        Form::NamedList(self.component, ArrayBuilder::new().items(integer()).build())
    }
}

/// Numbers, any of them.
#[derive(Clone, Copy, Debug)]
pub struct Reals {
    /// Most of them.
    pub most: usize,
}

impl Kind for Reals {
    type Value = Vec<f64>;

    fn read(&self, fields: &mut Fields, name: &str) -> Result<Option<Vec<f64>>, Error> {
        fields.numbers(name)
    }

    fn form(&self) -> Form {
        let list = ArrayBuilder::new().items(number()).min_items(Some(1));
        Form::List(list.max_items(Some(self.most)).build())
    }
}
