//! Closed sets of words: one list each, from which parsing, messages and documents follow.

/// A word of a closed set, as requests say it and answers repeat it.
pub trait Word: Copy + PartialEq + Send + Sync + 'static {
    /// Every one, in the order in which messages list them.
    const ALL: &'static [Self];

    /// The word.
    fn name(self) -> &'static str;

    /// The one of that name.
    #[must_use]
    fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|word| word.name() == name)
    }

    /// The names of all of them.
    #[must_use]
    fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|word| word.name()).collect()
    }
}

/// An enumeration whose members are words: `enum Sort { Bits = "bits" }`.
#[macro_export]
macro_rules! words {
    ($(#[$meta:meta])* $visibility:vis enum $set:ident {
        $($(#[$doc:meta])* $member:ident = $word:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $set {
            $($(#[$doc])* $member,)+
        }

        impl $crate::word::Word for $set {
            const ALL: &'static [Self] = &[$(Self::$member),+];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$member => $word,)+
                }
            }
        }
    };
}
