//! Names of tensors: one rule for every format, on the way in.
//!
//! What is taken under a name is answered under that name and an ending for
//! each part, and what was answered may be sent back.

use super::CodecError;

/// Longest key of an object or a file: keys end up in messages and logs.
pub const MAX_KEY_BYTES: usize = 512;
/// Longest name of a part of a quantized tensor, which stands behind the tensor's and a dot.
pub const MAX_PART_BYTES: usize = "global_scale".len();
/// Longest name of a tensor: with the name of a part it is a key.
pub const MAX_NAME_BYTES: usize = MAX_KEY_BYTES - (1 + MAX_PART_BYTES);

/// Whether a text can stand in messages and logs as it is.
#[must_use]
pub fn is_printable(name: &str) -> bool {
    !name.chars().any(char::is_control)
}

/// Refuses names that tensors of one request cannot have: with control
/// characters, too long, or none at all where there are several tensors.
///
/// # Errors
/// Says what is wrong with the first of them.
pub fn check<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Result<(), CodecError> {
    let is_alone = names.len() == 1;
    for name in names {
        if name.is_empty() && !is_alone {
            return Err(CodecError::malformed("a tensor without a name beside others")
                .cure("give each tensor a name"));
        }
        if !is_printable(name) {
            return Err(CodecError::malformed("a tensor name holds control characters")
                .cure("name the tensor otherwise"));
        }
        if name.len() > MAX_NAME_BYTES {
            let detail = format!("a tensor name is longer than {MAX_NAME_BYTES} bytes");
            let cure = "answers add the names of parts to it, such as .codes and .scale: name the tensor otherwise";
            return Err(CodecError::too_large(detail).cure(cure));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quantd_core::format::FORMATS;
    use quantd_core::scheme::Options;

    #[test]
    fn one_rule() {
        let ok = |names: &[&str]| check(names.iter().copied()).is_ok();
        let (longest, longer) = ("n".repeat(MAX_NAME_BYTES), "n".repeat(MAX_NAME_BYTES + 1));
        assert!(ok(&[]) && ok(&[""]) && ok(&["w", "w.codes", " ", "\u{e9}"]) && ok(&[&longest]));
        for wrong in [&["", "w"][..], &["w", ""], &["a\nb"], &["\u{85}"], &["w", "\0"], &[&longer]]
        {
            assert!(!ok(wrong), "{wrong:?}");
        }
        let types = FORMATS.iter().flat_map(|format| format.types(&Options::NONE));
        assert_eq!(types.map(|part| part.name.len()).max(), Some(MAX_PART_BYTES));
    }
}
