//! The most that a core can do with memory: the plainest loop for each kind of
//! pass, in 512-bit intrinsics, without edges, special values or hand-offs
//! between threads. Each thread has its own part of the set.
#![expect(
    unsafe_code,
    reason = "stores past the caches and prefetches are intrinsics with pointers"
)]

use std::arch::x86_64::*;

use quantd_core::tensor::Buffer;
use quantd_kernels::Isa;

use crate::harness::Meter;

/// What a pass over real numbers does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Reads.
    Read,
    /// Reads, with the memory 4 KiB on fetched beforehand: what the hardware
    /// fetches by itself ends at each page.
    ReadAhead,
    /// Reads, for the smallest and the largest.
    Extent,
    /// Reads, and writes a byte for each.
    Quantize,
    /// The same, fetched beforehand.
    QuantizeAhead,
    /// The same, written past the caches.
    QuantizePast,
    /// Writes, from a byte for each.
    Dequantize,
    /// The same, written past the caches.
    DequantizePast,
}

impl Pass {
    const ALL: [Self; 8] = [
        Self::Read,
        Self::ReadAhead,
        Self::Extent,
        Self::Quantize,
        Self::QuantizeAhead,
        Self::QuantizePast,
        Self::Dequantize,
        Self::DequantizePast,
    ];

    /// Name in requests.
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "limit-read",
            Self::ReadAhead => "limit-read-ahead",
            Self::Extent => "limit-extent",
            Self::Quantize => "limit-quantize",
            Self::QuantizeAhead => "limit-quantize-ahead",
            Self::QuantizePast => "limit-quantize-past",
            Self::Dequantize => "limit-dequantize",
            Self::DequantizePast => "limit-dequantize-past",
        }
    }
}

/// Seconds of a pass over `count` real numbers by all threads.
///
/// # Errors
/// When there is no such pass, or no AVX-512.
pub(super) fn seconds(pass: &str, count: usize, meter: &Meter<'_>) -> Result<f64, String> {
    let known = Pass::ALL.into_iter().find(|known| known.name() == pass);
    let pass = known.ok_or_else(|| format!("no limit {pass}"))?;
    if Isa::by_name("avx512").is_none() {
        return Err("limits of memory are measured with AVX-512".to_owned());
    }
    let own = (count / meter.pool.current_num_threads()).next_multiple_of(BLOCK);
    let prepare = || {
        let (mut x, mut codes) = (Buffer::zeroed(4 * own), Buffer::zeroed(own));
        let numbers = x.elements_mut::<f32>().iter_mut().enumerate();
        numbers.for_each(|(i, x)| *x = (i % 199) as f32 * 0.05 - 5.0);
        codes.bytes_mut().fill(1);
        (x, codes)
    };
    let rate = meter.rate(prepare, |(x, codes)| {
        let (x, _) = x.elements_mut::<f32>().as_chunks_mut::<BLOCK>();
        let (codes, _) = codes.bytes_mut().as_chunks_mut::<BLOCK>();
        // SAFETY: AVX-512 was detected above.
        unsafe { run(pass, x, codes) };
    });
    // Each thread passes over its own part: all of them together over `count`
    // numbers as often as one of them does.
    Ok(meter.pool.current_num_threads() as f64 / rate)
}

/// Numbers of one step, eight vectors of them.
const BLOCK: usize = 128;
/// Numbers from one fetched beforehand to the one read: 4 KiB.
const AHEAD: usize = 1024;

type Numbers = [f32; BLOCK];
type Codes = [u8; BLOCK];

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn run(pass: Pass, x: &mut [Numbers], codes: &mut [Codes]) {
    match pass {
        Pass::Read => read::<false>(x),
        Pass::ReadAhead => read::<true>(x),
        Pass::Extent => extent(x),
        Pass::Quantize => quantize::<false>(x, codes),
        Pass::QuantizeAhead => quantize::<true>(x, codes),
        Pass::QuantizePast => quantize_past(x, codes),
        Pass::Dequantize => dequantize::<false>(codes, x),
        Pass::DequantizePast => dequantize::<true>(codes, x),
    }
}

#[target_feature(enable = "avx512f")]
fn load(x: &[f32; 16]) -> __m512 {
    // SAFETY: 16 numbers are read.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
fn fetch(x: &Numbers, i: usize) {
    // The address may lie beyond the set: a prefetch accesses nothing.
    _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().wrapping_add(i + AHEAD).cast());
}

#[target_feature(enable = "avx512f")]
fn read<const FETCH: bool>(x: &[Numbers]) {
    let mut sums = [_mm512_setzero_ps(); BLOCK / 16];
    for x in x {
        for (i, (sum, part)) in sums.iter_mut().zip(x.as_chunks().0).enumerate() {
            if FETCH {
                fetch(x, 16 * i);
            }
            *sum = _mm512_add_ps(*sum, load(part));
        }
    }
    std::hint::black_box(sums);
}

#[target_feature(enable = "avx512f")]
fn extent(x: &[Numbers]) {
    let mut ends = [(_mm512_set1_ps(f32::MAX), _mm512_set1_ps(f32::MIN)); 4];
    for x in x {
        for x in x.as_chunks::<64>().0 {
            for ((low, high), part) in ends.iter_mut().zip(x.as_chunks().0) {
                let part = load(part);
                *low = _mm512_min_ps(*low, part);
                *high = _mm512_max_ps(*high, part);
            }
        }
    }
    std::hint::black_box(ends);
}

/// 16 codes: one multiplication and addition, rounded, saturated.
#[target_feature(enable = "avx512f")]
fn codes_of(x: &[f32; 16]) -> __m128i {
    let grid = _mm512_fmadd_ps(load(x), _mm512_set1_ps(40.0), _mm512_set1_ps(128.0));
    let codes = _mm512_max_epi32(_mm512_cvtps_epi32(grid), _mm512_setzero_si512());
    _mm512_cvtusepi32_epi8(codes)
}

#[target_feature(enable = "avx512f")]
fn quantize<const FETCH: bool>(x: &[Numbers], codes: &mut [Codes]) {
    for (x, codes) in x.iter().zip(codes) {
        for (i, (part, codes)) in
            x.as_chunks().0.iter().zip(codes.as_chunks_mut::<16>().0).enumerate()
        {
            if FETCH {
                fetch(x, 16 * i);
            }
            let of_part = codes_of(part);
            // SAFETY: 16 codes are written.
            unsafe { _mm_storeu_si128(codes.as_mut_ptr().cast(), of_part) };
        }
    }
}

#[target_feature(enable = "avx512f")]
fn quantize_past(x: &[Numbers], codes: &mut [Codes]) {
    assert!(codes.as_ptr().cast::<__m512i>().is_aligned(), "a buffer begins at a cache line");
    for (x, codes) in x.iter().zip(codes) {
        for (x, codes) in x.as_chunks::<64>().0.iter().zip(codes.as_chunks_mut::<64>().0) {
            let (x, _) = x.as_chunks();
            let line = _mm512_castsi128_si512(codes_of(&x[0]));
            let line = _mm512_inserti32x4::<1>(line, codes_of(&x[1]));
            let line = _mm512_inserti32x4::<2>(line, codes_of(&x[2]));
            let line = _mm512_inserti32x4::<3>(line, codes_of(&x[3]));
            // SAFETY: 64 codes are written, aligned as asserted above.
            unsafe { _mm512_stream_si512(codes.as_mut_ptr().cast(), line) };
        }
    }
    _mm_sfence();
}

#[target_feature(enable = "avx512f")]
fn dequantize<const PAST: bool>(codes: &[Codes], x: &mut [Numbers]) {
    assert!(x.as_ptr().cast::<__m512>().is_aligned(), "a buffer begins at a cache line");
    let (scale, shift) = (_mm512_set1_ps(0.025), _mm512_set1_ps(-3.2));
    for (x, codes) in x.iter_mut().zip(codes) {
        for (x, codes) in x.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0) {
            // SAFETY: 16 codes are read.
            let codes = unsafe { _mm_loadu_si128(codes.as_ptr().cast()) };
            let codes = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes));
            let restored = _mm512_fmadd_ps(codes, scale, shift);
            if PAST {
                // SAFETY: 16 numbers are written, aligned as asserted above.
                unsafe { _mm512_stream_ps(x.as_mut_ptr(), restored) };
            } else {
                // SAFETY: 16 numbers are written.
                unsafe { _mm512_storeu_ps(x.as_mut_ptr(), restored) };
            }
        }
    }
    if PAST {
        _mm_sfence();
    }
}
