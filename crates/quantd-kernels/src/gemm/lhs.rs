//! The left operand: rows of codes as the tiles read them.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::Buffer;

use super::super::scalar::{Code, CodeRange, Extent, Params, QuantParams, Rounding};
use super::super::{CodeSpec, Isa};
use super::Codes;
use super::shared::{Shared, share};
use super::tile::{Lanes, Tile};

/// The left operand, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Lhs<'a> {
    /// Rows.
    pub m: usize,
    /// Columns.
    pub k: usize,
    /// Elements.
    pub elements: Elements<'a>,
}

/// What the left operand holds.
#[derive(Clone, Copy, Debug)]
pub enum Elements<'a> {
    /// Codes.
    Codes {
        /// The codes.
        codes: Codes<'a>,
        /// Zero points within the range of the codes, one or one a row.
        zero_points: &'a [i32],
        /// Scales, one or one a row.
        scales: &'a [f32],
    },
    /// Real numbers, quantized while they are packed.
    Real(Dynamic<'a>),
}

/// Real numbers and how they become codes.
#[derive(Clone, Copy, Debug)]
pub struct Dynamic<'a> {
    /// The numbers.
    pub x: &'a [f32],
    /// Codes, within -128..127 if the lower end is negative, else within 0..255.
    pub range: CodeRange,
    /// How numbers become codes.
    pub rounding: Rounding,
    /// Where scale and zero point come from.
    pub params: RowParams<'a>,
}

/// Parameters of the rows of real numbers.
#[derive(Clone, Copy)]
pub enum RowParams<'a> {
    /// All rows share them.
    Same(QuantParams<f32>),
    /// Those of each row follow from its extent.
    Row(&'a (dyn Fn(Extent<f32>) -> QuantParams<f32> + Sync)),
}

impl std::fmt::Debug for RowParams<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Same(affine) => f.debug_tuple("Same").field(affine).finish(),
            Self::Row(_) => f.write_str("Row"),
        }
    }
}

/// Rows of shifted codes with what the correction and the output need of them.
#[derive(Debug)]
pub struct PackedLhs<'a> {
    m: usize,
    stride: usize,
    bytes: Bytes<'a>,
    /// Shifted, one or one a row.
    zero_points: Vec<i32>,
    scales: Cow<'a, [f32]>,
    /// Sum of the shifted codes of each row; empty when nobody needs them.
    sums: Vec<i32>,
}

#[derive(Debug)]
enum Bytes<'a> {
    /// The caller's codes are as the tiles want them.
    Borrowed(&'a [u8]),
    Packed(Buffer),
}

/// Rows that one thread packs at a time.
const ROWS: usize = 8;
/// Codes from which on packing is shared between threads.
const SHARED: usize = 1 << 17;
/// Real numbers from which on it is: some microseconds of quantizing.
const SHARED_REALS: usize = 1 << 15;

impl<'a> PackedLhs<'a> {
    /// Packs for that instruction set, with the sums of the rows if they are needed.
    ///
    /// # Panics
    /// When the lengths do not fit one another.
    #[must_use]
    pub fn new(isa: Isa, left: Lhs<'a>, with_sums: bool) -> Self {
        let tile = Tile::of(isa);
        let mut packed = Self::for_tile(isa, tile, left);
        if with_sums {
            packed.sums = (0..packed.m).map(|row| tile.lanes.sum(packed.row(row))).collect();
        }
        packed
    }

    /// Packs for tiles like that.
    pub(super) fn for_tile(isa: Isa, tile: Tile, left: Lhs<'a>) -> Self {
        let lanes = tile.lanes;
        let Lhs { m, k, elements } = left;
        match elements {
            Elements::Codes { codes, zero_points, scales } => {
                assert!(codes.len() == m * k, "codes have the shape of the operand");
                let shift = lanes.shift_left(matches!(codes, Codes::I8(_)));
                let (bytes, stride) = match codes {
                    Codes::U8(codes)
                        if lanes == Lanes::UnsignedBySigned && tile.takes_rows_of(m, k) =>
                    {
                        (Bytes::Borrowed(codes), k)
                    }
                    Codes::U8(codes) => pack(codes, k, tile),
                    Codes::I8(codes) => pack(codes, k, tile),
                };
                let zero_points = zero_points.iter().map(|zero| zero + shift).collect();
                Self { m, stride, bytes, zero_points, scales: scales.into(), sums: Vec::new() }
            }
            Elements::Real(dynamic) => {
                assert!(dynamic.x.len() == m * k, "numbers have the shape of the operand");
                if dynamic.range.min < 0 {
                    quantize::<i8>(isa, tile, (m, k), &dynamic)
                } else {
                    quantize::<u8>(isa, tile, (m, k), &dynamic)
                }
            }
        }
    }

    /// M.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.m
    }

    /// Scales, one or one a row: those found where the operand was real.
    #[must_use]
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Bytes of the rows from `first` on, [`stride`](Self::stride) apart.
    pub(super) fn bytes_from(&self, first: usize) -> &[u8] {
        let bytes = match &self.bytes {
            Bytes::Borrowed(bytes) => bytes,
            Bytes::Packed(buffer) => buffer.bytes(),
        };
        &bytes[first * self.stride..]
    }

    pub(super) const fn stride(&self) -> usize {
        self.stride
    }

    pub(super) fn zero_points(&self) -> &[i32] {
        &self.zero_points
    }

    pub(super) fn sums(&self) -> &[i32] {
        &self.sums
    }

    pub(super) fn row(&self, row: usize) -> &[u8] {
        &self.bytes_from(row)[..self.stride]
    }
}

/// A code in the form that tiles read.
trait Packable: Code {
    /// Whether codes may be negative.
    const SIGNED: bool;
    /// Writes codes where tiles read them; `row` is as long as the lanes want it.
    fn write(codes: &[Self], lanes: Lanes, row: &mut [u8]);
}

impl Packable for u8 {
    const SIGNED: bool = false;
    fn write(codes: &[Self], lanes: Lanes, row: &mut [u8]) {
        match lanes {
            Lanes::UnsignedBySigned => row[..codes.len()].copy_from_slice(codes),
            Lanes::SignedBySigned => {
                row.iter_mut().zip(codes).for_each(|(byte, code)| *byte = code ^ 0x80);
            }
            Lanes::Words => {
                let words = bytemuck::cast_slice_mut::<_, i16>(row);
                words.iter_mut().zip(codes).for_each(|(word, &code)| *word = code.into());
            }
        }
    }
}

impl Packable for i8 {
    const SIGNED: bool = true;
    fn write(codes: &[Self], lanes: Lanes, row: &mut [u8]) {
        match lanes {
            Lanes::UnsignedBySigned => {
                let bytes = row.iter_mut().zip(codes);
                bytes.for_each(|(byte, code)| *byte = code.cast_unsigned() ^ 0x80);
            }
            Lanes::SignedBySigned => {
                row[..codes.len()].copy_from_slice(bytemuck::cast_slice(codes));
            }
            Lanes::Words => {
                let words = bytemuck::cast_slice_mut::<_, i16>(row);
                words.iter_mut().zip(codes).for_each(|(word, &code)| *word = code.into());
            }
        }
    }
}

fn pack<'a, T: Packable>(codes: &[T], k: usize, tile: Tile) -> (Bytes<'a>, usize) {
    let (stride, lanes) = (tile.depth(k), tile.lanes);
    if stride == 0 {
        return (Bytes::Packed(Buffer::default()), 0);
    }
    let mut buffer = Buffer::zeroed(codes.len() / k * stride);
    let write = |(row, codes): (&mut [u8], &[T])| T::write(codes, lanes, row);
    if codes.len() < SHARED {
        buffer.bytes_mut().chunks_exact_mut(stride).zip(codes.chunks_exact(k)).for_each(write);
    } else {
        let rows = buffer.bytes_mut().par_chunks_exact_mut(stride).zip(codes.par_chunks_exact(k));
        rows.with_min_len(ROWS).for_each(write);
    }
    (Bytes::Packed(buffer), stride)
}

/// Quantizes each row as it is packed: a row is read from memory once, its
/// extent and its codes are made while it is in the first-level cache.
fn quantize<'a, T: Packable>(
    isa: Isa,
    tile: Tile,
    (m, k): (usize, usize),
    from: &Dynamic<'_>,
) -> PackedLhs<'a> {
    let (stride, lanes) = (tile.depth(k), tile.lanes);
    let mut buffer = Buffer::zeroed(m * stride);
    let mut affines = vec![QuantParams { scale: 1.0, zero_point: 0 }; m];
    let how = CodeSpec::new(from.range, from.rounding);
    let in_place = lanes.takes_as_they_are(T::SIGNED);
    let one = |codes: &mut [T], x: &[f32], bytes: &mut [u8], affine: &mut QuantParams<f32>| {
        *affine = match from.params {
            RowParams::Same(affine) => affine,
            RowParams::Row(affine) => affine(isa.extent(x)),
        };
        if in_place {
            let codes = bytemuck::cast_slice_mut::<u8, T>(&mut bytes[..x.len()]);
            isa.quantize(x, Params::Same(*affine), how, codes);
        } else {
            isa.quantize(x, Params::Same(*affine), how, codes);
            T::write(codes, lanes, bytes);
        }
    };
    let rows = Shared::new(buffer.bytes_mut(), m, stride);
    let found = Shared::new(&mut affines, m, 1);
    let group = |task: usize, codes: &mut Vec<T>| {
        codes.resize(if in_place { 0 } else { k }, T::from_code(0));
        for row in task * ROWS..m.min((task + 1) * ROWS) {
            let x = &from.x[row * k..(row + 1) * k];
            one(codes, x, rows.row(row, 0, stride), &mut found.row(row, 0, 1)[0]);
        }
    };
    let threads = if from.x.len() < SHARED_REALS { 1 } else { rayon::current_num_threads() };
    share(m.div_ceil(ROWS), threads, &group);
    let kept = if matches!(from.params, RowParams::Same(_)) { m.min(1) } else { m };
    let shift = lanes.shift_left(T::SIGNED);
    let zero_points = affines[..kept].iter().map(|affine| affine.zero_point + shift).collect();
    let scales = affines[..kept].iter().map(|affine| affine.scale).collect();
    PackedLhs { m, stride, bytes: Bytes::Packed(buffer), zero_points, scales, sums: Vec::new() }
}
