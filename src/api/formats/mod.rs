//! The number formats that requests may name.

use quantd_core::format::{CODES, FORMATS, Format};
use quantd_core::scheme::Options;

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

/// The same without codes, which all of them have.
pub fn parts_beside_codes() -> impl Iterator<Item = &'static str> {
    parts().into_iter().filter(|part| *part != CODES)
}

#[cfg(test)]
mod tests;
