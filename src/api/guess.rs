//! What a word that is none may have been meant as.

/// Longest word that is compared.
const MAX_LEN: usize = 64;

/// The one of `known` that a slip of the fingers makes `word` of.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain: String = word.chars().take(MAX_LEN).flat_map(char::to_lowercase).collect();
    let slips = plain.chars().count().max(3) / 3;
    let distance = |known: &str| strsim::osa_distance(&plain, &known.to_lowercase());
    let (known, distance) =
        known.into_iter().map(|known| (known, distance(known))).min_by_key(|near| near.1)?;
    (distance <= slips).then_some(known)
}

/// What a guess begins with.
pub const GUESS: &str = "did you mean";

/// A guess, before what else there is to say.
#[must_use]
pub fn guess(word: &str) -> String {
    format!("{GUESS} {word}? ")
}

/// The words that there are, and before them the one that was meant: `what` says what they are.
#[must_use]
pub fn hint(word: &str, known: &[&str], what: &str) -> String {
    let nearest = nearest(word, known.iter().copied());
    format!("{}{what}: {}", nearest.map(guess).unwrap_or_default(), known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_guessed_and_others_are_not() {
        let known = ["bits", "axis", "group_size", "min_max", "F32"];
        for (word, expect) in [
            ("bit", Some("bits")),
            ("bist", Some("bits")),
            ("BITS", Some("bits")),
            ("groupSize", Some("group_size")),
            ("minmax", Some("min_max")),
            ("fp32", Some("F32")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expect, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
        assert_eq!(nearest("x", []), None);
    }
}
