//! The number formats that requests may name.

use quantd_core::format::{FORMATS, Format};
use quantd_core::scheme::Options;

use super::error::Error;
use super::fields::Fields;

/// Every format, in the order in which messages list them.
pub fn all() -> impl Iterator<Item = &'static dyn Format> {
    let formats = FORMATS.into_iter();
    #[cfg(test)]
    let formats = formats.chain([&tests::BLOCKS as &dyn Format]);
    formats
}

/// The format of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static dyn Format> {
    all().find(|format| format.name() == name)
}

/// The names of their parts, each once.
#[must_use]
pub fn parts() -> Vec<&'static str> {
    let mut names = Vec::new();
    for part in all().flat_map(|format| format.types(&Options::NONE)) {
        if !names.contains(&part.name) {
            names.push(part.name);
        }
    }
    names
}

/// Takes the field `format`.
///
/// # Errors
/// [`Kind::InvalidOption`](super::error::Kind::InvalidOption) for a name that is none.
pub(super) fn take(fields: &mut Fields) -> Result<Option<&'static dyn Format>, Error> {
    let names: Vec<_> = all().map(Format::name).collect();
    Ok(fields.one_of("format", &names)?.and_then(find))
}

#[cfg(test)]
mod tests;
