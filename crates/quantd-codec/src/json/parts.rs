//! Large arrays of numbers, read in parts at the same time.
//!
//! Where arrays are nested regularly, the index of a number says which brackets stand before it and after it: a
//! part of the text is read without those before it once it is known how many numbers these have, and commas are
//! counted as fast as memory is read. Whatever is not as it should be is left to
//! [`Nesting::read`](super::read::Nesting::read), which says what is wrong, and where.

use rayon::prelude::*;

use super::read::{Element, skip};
use quantd_core::tensor::MAX_RANK;

/// Bytes of a part.
const PART: usize = 1 << 20;
/// Parts that every thread reads between two looks at whether to go on.
const TURN: usize = 4;

/// What could be read in parts.
pub(super) enum Read {
    /// All of it: the extents.
    Whole(Vec<usize>),
    /// Nothing that counts.
    Nothing,
    /// The work is no longer wanted.
    Stopped,
}

/// Some of the text, without the comma behind it, the index of its first number, and where its numbers go.
struct Part<'a, T> {
    text: &'a [u8],
    first: usize,
    out: &'a mut [T],
}

/// Reads a value into `out`, which has an element more than `text` has commas. Now and then `goes_on` is asked
/// whether to.
pub(super) fn read<T: Element>(
    text: &[u8],
    out: &mut [T],
    goes_on: &mut dyn FnMut() -> bool,
) -> Read {
    if rayon::current_num_threads() < 2 || text.len() < 2 * PART {
        return Read::Nothing;
    }
    read_parts(PART, text, out, goes_on)
}

/// The same, whatever its length, in parts of `size` bytes.
fn read_parts<T: Element>(
    size: usize,
    text: &[u8],
    out: &mut [T],
    goes_on: &mut dyn FnMut() -> bool,
) -> Read {
    let count = out.len();
    let Some(blocks) = blocks(text, count) else { return Read::Nothing };
    let mut parts = parts(size, text, out);
    let is_whole =
        parts.last().is_some_and(|part| part.first.wrapping_add(part.out.len()) == count);
    if !is_whole {
        return Read::Nothing;
    }
    for turn in parts.chunks_mut(TURN.saturating_mul(rayon::current_num_threads())) {
        if !goes_on() {
            return Read::Stopped;
        }
        if !turn.par_iter_mut().all(|part| read_part(part, &blocks).is_some()) {
            return Read::Nothing;
        }
    }
    let inner = blocks.iter().rev().skip(1).chain(&[1]);
    let extents = blocks.iter().rev().zip(inner).map(|(block, inner)| block.checked_div(*inner));
    extents.collect::<Option<_>>().map_or(Read::Nothing, Read::Whole)
}

/// How many numbers the first array of each level has, innermost first, if all of `count` numbers can be in such.
fn blocks(text: &[u8], count: usize) -> Option<Vec<usize>> {
    let mut rank = 0_usize;
    let mut rest = skip(text);
    while let [b'[', tail @ ..] = rest {
        rank = rank.checked_add(1).filter(|&rank| rank <= MAX_RANK)?;
        rest = skip(tail);
    }
    let mut blocks: Vec<usize> = Vec::with_capacity(rank);
    let (mut depth, mut from, mut commas) = (0_usize, 0, 0_usize);
    for at in memchr::memchr2_iter(b'[', b']', text) {
        if blocks.len().checked_add(1)? >= rank {
            break;
        }
        if text.get(at) == Some(&b'[') {
            depth = depth.checked_add(1).filter(|&depth| depth <= rank)?;
            continue;
        }
        depth = depth.checked_sub(1)?;
        // The first array of a level ends where the depth is as low for the first time.
        if depth.checked_add(blocks.len())? < rank {
            commas = commas.checked_add(memchr::memchr_iter(b',', text.get(from..at)?).count())?;
            from = at;
            blocks.push(commas.checked_add(1)?);
        }
    }
    blocks.push(count);
    let regular = blocks
        .windows(2)
        .all(|pair| matches!(pair, [inner, outer] if outer.is_multiple_of(*inner)));
    (rank > 0 && blocks.len() == rank && regular).then_some(blocks)
}

/// The text in parts of `size` bytes, and what there is up to the next comma.
fn parts<'a, T: Element>(size: usize, text: &'a [u8], out: &'a mut [T]) -> Vec<Part<'a, T>> {
    let mut texts = Vec::with_capacity(text.len().div_ceil(size.max(1)));
    let mut rest = text;
    while let Some(after) = rest.get(size..) {
        let Some(comma) = memchr::memchr(b',', after) else { break };
        let (part, tail) = rest.split_at(size.wrapping_add(comma));
        texts.push(part);
        rest = tail.get(1..).unwrap_or_default();
    }
    texts.push(rest);
    let counts: Vec<usize> = texts
        .par_iter()
        .map(|text| memchr::memchr_iter(b',', text).count().saturating_add(1))
        .collect();
    let (mut first, mut slots) = (0_usize, out);
    let mut parts = Vec::with_capacity(texts.len());
    for (text, count) in texts.into_iter().zip(counts) {
        let Some((out, others)) = std::mem::take(&mut slots).split_at_mut_checked(count) else {
            break;
        };
        parts.push(Part { text, first, out });
        (first, slots) = (first.wrapping_add(count), others);
    }
    parts
}

/// Reads the numbers of a part, all of them between the brackets that belong there.
fn read_part<T: Element>(part: &mut Part<'_, T>, blocks: &[usize]) -> Option<()> {
    let row = *blocks.first()?;
    let mut rest = skip(part.text);
    let mut index = part.first;
    let mut out = &mut *part.out;
    while !out.is_empty() {
        rest = take(rest, b'[', ends(index, blocks))?;
        // Up to the end of the row, or of the part.
        let left = row.wrapping_sub(index.checked_rem(row)?).min(out.len());
        let (own, others) = std::mem::take(&mut out).split_at_mut_checked(left)?;
        let mut slots = own.iter_mut();
        let last = slots.next_back()?;
        for slot in slots {
            let (value, tail) = T::parse(rest).ok()?;
            *slot = value;
            rest = skip(skip(tail).strip_prefix(b",")?);
        }
        let (value, tail) = T::parse(rest).ok()?;
        *last = value;
        index = index.wrapping_add(left);
        rest = take(skip(tail), b']', ends(index, blocks))?;
        out = others;
        if !out.is_empty() {
            rest = skip(rest.strip_prefix(b",")?);
        }
    }
    rest.is_empty().then_some(())
}

/// How many arrays begin, or end, at the number of that index.
fn ends(index: usize, blocks: &[usize]) -> usize {
    blocks.iter().take_while(|block| index.is_multiple_of(**block)).count()
}

/// What follows that many of `bracket`.
fn take(mut text: &[u8], bracket: u8, count: usize) -> Option<&[u8]> {
    for _ in 0..count {
        text = skip(text.strip_prefix(&[bracket])?);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::read::Nesting;
    use super::*;

    /// Extents and numbers.
    type Found = Option<(Vec<usize>, Vec<f32>)>;

    /// What is read in parts, and what is read at once.
    fn both(size: usize, text: &str) -> (Found, Found) {
        let bound = text.bytes().filter(|&byte| byte == b',').count() + 1;
        let (mut parts, mut whole) = (vec![0.0; bound], vec![0.0; bound]);
        let in_parts = match read_parts(size, text.as_bytes(), &mut parts, &mut || true) {
            Read::Whole(dims) => Some((dims, parts)),
            Read::Nothing => None,
            Read::Stopped => panic!("it was to go on"),
        };
        let mut nesting = Nesting::default();
        let at_once = nesting.read(text.as_bytes(), &mut whole, &mut || true);
        (in_parts, at_once.is_ok().then(|| (nesting.dims(), whole)))
    }

    fn nested(dims: &[usize], next: &mut usize, space: &str) -> String {
        let Some((&len, inner)) = dims.split_first() else {
            *next += 1;
            return format!("{space}{}", *next as f32 / -8.0);
        };
        let all: Vec<String> = (0..len).map(|_| nested(inner, next, space)).collect();
        format!("{space}[{}{space}]{space}", all.join(","))
    }

    proptest! {
        #[test]
        fn parts_make_the_whole(
            dims in prop::collection::vec(1..6_usize, 1..5), size in 0..40_usize,
            space in prop::sample::select(vec!["", " ", "\n\t"]),
        ) {
            let text = nested(&dims, &mut 0, space);
            let (in_parts, at_once) = both(size, &text);
            prop_assert_eq!(in_parts.as_ref().map(|(dims, _)| dims), Some(&dims), "{}", text);
            prop_assert_eq!(in_parts, at_once);
        }

        #[test]
        fn what_is_wrong_is_left_to_who_says_so(
            dims in prop::collection::vec(1..5_usize, 1..4), size in 0..40_usize,
            at in any::<prop::sample::Index>(), with in prop::sample::select(b"[],.-0 x\"".to_vec()),
            how in 0..3_usize,
        ) {
            let mut text = nested(&dims, &mut 0, "").into_bytes();
            let at = at.index(text.len());
            match how {
                0 => text[at] = with,
                1 => text.insert(at, with),
                _ => drop(text.remove(at)),
            }
            let text = String::from_utf8(text).unwrap();
            let (in_parts, at_once) = both(size, &text);
            if let Some(found) = in_parts {
                prop_assert_eq!(Some(found), at_once, "{}", text);
            }
        }
    }

    #[test]
    fn work_that_is_not_wanted_ends() {
        let text = nested(&[4, 4], &mut 0, "");
        let read = read_parts(4, text.as_bytes(), &mut [0.0_f32; 16], &mut || false);
        assert!(matches!(read, Read::Stopped));
    }
}
