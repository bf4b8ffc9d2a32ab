//! Element types, named as safetensors names them.

use std::fmt;

/// Type of one tensor element on the wire and in memory (little-endian).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 16-bit integer.
    I16,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 64-bit integer.
    U64,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 16-bit integer.
    U16,
    /// Unsigned 8-bit integer.
    U8,
    /// `float8_e4m3fn`: 4 bits of exponent, 3 of mantissa, no infinities.
    F8E4M3,
    /// `float8_e5m2`: 5 bits of exponent, 2 of mantissa.
    F8E5M2,
    /// `float8_e4m3fnuz`: no infinities, one NaN, no -0.
    F8E4M3Fnuz,
    /// `float8_e5m2fnuz`: no infinities, one NaN, no -0.
    F8E5M2Fnuz,
    /// `float8_e8m0fnu`: powers of two, which are scales of blocks.
    F8E8M0,
}

/// What else the types are called, in lower case: by `NumPy` (also `arr.dtype.str`) and by
/// `PyTorch`, whose words for C types are not those of `NumPy`.
const ALIASES: [(DType, &[&str]); 17] = [
    (DType::F64, &["float64", "double", "<f8"]),
    (DType::F32, &["float32", "single", "torch.float", "<f4"]),
    (DType::F16, &["float16", "half", "<f2"]),
    (DType::BF16, &["bfloat16"]),
    (DType::I64, &["int64", "torch.long", "<i8"]),
    (DType::I32, &["int32", "torch.int", "<i4"]),
    (DType::I16, &["int16", "torch.short", "<i2"]),
    (DType::I8, &["int8", "|i1"]),
    (DType::U64, &["uint64", "<u8"]),
    (DType::U32, &["uint32", "<u4"]),
    (DType::U16, &["uint16", "<u2"]),
    (DType::U8, &["uint8", "|u1"]),
    (DType::F8E4M3, &["float8_e4m3fn"]),
    (DType::F8E5M2, &["float8_e5m2"]),
    (DType::F8E4M3Fnuz, &["float8_e4m3fnuz"]),
    (DType::F8E5M2Fnuz, &["float8_e5m2fnuz"]),
    (DType::F8E8M0, &["float8_e8m0fnu"]),
];

/// Modules whose names may stand before those of types.
const MODULES: [&str; 3] = ["torch.", "numpy.", "np."];

impl DType {
    /// Every type, in the order in which messages list them.
    pub const ALL: [Self; 17] = [
        Self::F64,
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::I64,
        Self::I32,
        Self::I16,
        Self::I8,
        Self::U64,
        Self::U32,
        Self::U16,
        Self::U8,
        Self::F8E4M3,
        Self::F8E5M2,
        Self::F8E4M3Fnuz,
        Self::F8E5M2Fnuz,
        Self::F8E8M0,
    ];

    /// Name used by `/v1` and by safetensors files, such as `BF16`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::F8E4M3Fnuz => "F8_E4M3FNUZ",
            Self::F8E5M2Fnuz => "F8_E5M2FNUZ",
            Self::F8E8M0 => "F8_E8M0",
        }
    }

    /// The type of that [`name`](Self::name), or `None`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The type of that name, in any case, or of one of its aliases.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let own = Self::ALL.into_iter().find(|dtype| dtype.name().eq_ignore_ascii_case(&name));
        let alias = |name: &str| {
            let found = ALIASES.iter().find(|(_, names)| names.contains(&name));
            found.map(|(dtype, _)| *dtype)
        };
        let module = |name: &str| MODULES.iter().find_map(|m| alias(name.strip_prefix(m)?));
        own.or_else(|| alias(&name)).or_else(|| module(&name))
    }

    /// Bytes of one element.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 => 1,
            Self::F8E4M3 | Self::F8E5M2 | Self::F8E4M3Fnuz | Self::F8E5M2Fnuz | Self::F8E8M0 => 1,
        }
    }

    /// Whether the type is one of real numbers. Of powers of two there are scales alone.
    #[must_use]
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
            || (self.is_eighth() && !matches!(self, Self::F8E8M0))
    }

    /// Whether the type is a float of eight bits, which few can name: JSON, npy and the Open Inference Protocol have
    /// its bit patterns.
    #[must_use]
    pub const fn is_eighth(self) -> bool {
        match self {
            Self::F8E4M3 | Self::F8E5M2 | Self::F8E4M3Fnuz | Self::F8E5M2Fnuz | Self::F8E8M0 => {
                true
            }
            Self::F64 | Self::F32 | Self::F16 | Self::BF16 => false,
            Self::I64 | Self::I32 | Self::I16 | Self::I8 => false,
            Self::U64 | Self::U32 | Self::U16 | Self::U8 => false,
        }
    }

    /// The unsigned integers of the same size: its bit patterns.
    #[must_use]
    pub const fn patterns(self) -> Self {
        match self.size() {
            8 => Self::U64,
            4 => Self::U32,
            2 => Self::U16,
            _ => Self::U8,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_names_that_libraries_give_them() {
        for (name, expect) in [
            ("F32", Some(DType::F32)),
            ("f32", Some(DType::F32)),
            ("Float32", Some(DType::F32)),
            ("torch.float16", Some(DType::F16)),
            ("torch.half", Some(DType::F16)),
            ("torch.long", Some(DType::I64)),
            ("np.uint8", Some(DType::U8)),
            ("bfloat16", Some(DType::BF16)),
            ("torch.float8_e4m3fn", Some(DType::F8E4M3)),
            ("f8_e5m2", Some(DType::F8E5M2)),
            ("<f4", Some(DType::F32)),
            // As Rust says it, not NumPy's type code for eight bytes.
            ("i8", Some(DType::I8)),
            ("<i8", Some(DType::I64)),
            // Of four bytes in PyTorch, of eight in Python.
            ("float", None),
            ("np.float", None),
            (">f4", None),
            ("FP32", None),
            ("torch.", None),
            ("torch.torch.int8", None),
            ("", None),
        ] {
            assert_eq!(DType::parse(name), expect, "{name}");
        }
        for (dtype, names) in ALIASES {
            assert_eq!(DType::parse(dtype.name()), Some(dtype));
            assert!(names.iter().all(|name| DType::parse(name) == Some(dtype)), "{dtype}");
        }
    }
}
