//! What sums of products become.

use super::requantize::Requantize;

/// Where the product goes, and as what. All are `[m, n]`, row-major.
#[derive(Debug)]
pub enum Output<'a> {
    /// The sums themselves.
    I32(&'a mut [i32]),
    /// `f32(sum) * (scale_a * scale_b) + bias`, each operation rounded to
    /// nearest, ties to even; then the larger of that and 0 where so asked.
    F32 {
        /// The result.
        out: &'a mut [f32],
        /// One a column.
        bias: Option<&'a [f32]>,
        /// Whether there is a `ReLU`.
        relu: bool,
    },
    /// Codes 0 to 255.
    U8(&'a mut [u8], Requantize<'a>),
    /// Codes -128 to 127.
    I8(&'a mut [i8], Requantize<'a>),
}
