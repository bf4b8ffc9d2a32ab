//! Names of tensors: one rule for every format, on the way in.
//!
//! What is taken under a name is answered under that name and an ending for
//! each part, and what was answered may be sent back.

use super::CodecError;

/// Longest key of an object or a file: keys end up in messages and logs.
pub const MAX_KEY_BYTES: usize = 512;
/// The parts of a quantized tensor, whose names are the tensor's, a dot and this.
pub const PARTS: [&str; 3] = ["codes", "scale", "zero_point"];
/// Longest name of a tensor: with the longest of those endings it is a key.
pub const MAX_NAME_BYTES: usize = MAX_KEY_BYTES - (1 + PARTS[2].len());

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
            let cure =
                "answers add .codes, .scale and .zero_point to it: name the tensor otherwise";
            return Err(CodecError::too_large(detail).cure(cure));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule() {
        let ok = |names: &[&str]| check(names.iter().copied()).is_ok();
        let (longest, longer) = ("n".repeat(501), "n".repeat(502));
        assert!(ok(&[]) && ok(&[""]) && ok(&["w", "w.codes", " ", "\u{e9}"]) && ok(&[&longest]));
        for wrong in [&["", "w"][..], &["w", ""], &["a\nb"], &["\u{85}"], &["w", "\0"], &[&longer]]
        {
            assert!(!ok(wrong), "{wrong:?}");
        }
        let longest_part = PARTS.iter().map(|part| part.len()).max().unwrap();
        assert_eq!(MAX_NAME_BYTES + 1 + longest_part, MAX_KEY_BYTES);
    }
}
