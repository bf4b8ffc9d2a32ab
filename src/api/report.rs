//! Reports as they are written and described.

use std::borrow::Cow;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{
    ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use quantd_core::report::{Figure, Report};

/// What quantizing lost.
#[derive(Clone, Debug)]
pub struct ReportDoc {
    /// Over the whole tensor.
    pub report: Report,
    /// The same for each slice, when asked for with `per_slice`.
    pub slices: Option<Vec<Self>>,
}

impl ReportDoc {
    /// Its figures by name; `None` where one is not a finite number.
    pub fn figures(&self) -> impl Iterator<Item = (&'static str, Option<f64>)> {
        Report::FIGURES.iter().map(|meaning| match (meaning.of)(&self.report) {
            Figure::Real(value) => (meaning.name, value),
            Figure::Count(count) => (meaning.name, Some(count as f64)),
        })
    }
}

impl From<&Report> for ReportDoc {
    fn from(report: &Report) -> Self {
        Self { report: report.clone(), slices: None }
    }
}

impl Serialize for ReportDoc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for meaning in Report::FIGURES {
            match (meaning.of)(&self.report) {
                Figure::Real(value) => map.serialize_entry(meaning.name, &value)?,
                Figure::Count(count) => map.serialize_entry(meaning.name, &count)?,
            }
        }
        if let Some(slices) = &self.slices {
            map.serialize_entry("slices", slices)?;
        }
        map.end()
    }
}

impl PartialSchema for ReportDoc {
    fn schema() -> RefOr<Schema> {
        // Whether a figure is a count does not depend on the report.
        let any = Report::new(&Default::default(), 0, 0, Default::default());
        let of = |kind, format| {
            ObjectBuilder::new().schema_type(kind).format(Some(SchemaFormat::KnownFormat(format)))
        };
        let mut report = ObjectBuilder::new().description(Some(
            "What quantizing lost, over the finite elements. A figure is `null` where it\nis not a finite number: \
             `sqnr_db` of an exact result or of an all-zero\ntensor, any mean of no elements.",
        ));
        for meaning in Report::FIGURES {
            report = match (meaning.of)(&any) {
                Figure::Real(_) => {
                    let kind = SchemaType::from_iter([Type::Number, Type::Null]);
                    let real = of(kind, KnownFormat::Double);
                    report.property(meaning.name, real.description(Some(meaning.summary)))
                }
                Figure::Count(_) => {
                    let count = of(Type::Integer.into(), KnownFormat::Int64).minimum(Some(0));
                    let count = count.description(Some(meaning.summary));
                    report.property(meaning.name, count).required(meaning.name)
                }
            };
        }
        let slices = ArrayBuilder::new()
            .items(Ref::from_schema_name(Self::name()))
            .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
            .description(Some("The same for each slice, when asked for with `per_slice`."));
        report.property("slices", slices).into()
    }
}

impl ToSchema for ReportDoc {
    fn name() -> Cow<'static, str> {
        "Report".into()
    }
}
