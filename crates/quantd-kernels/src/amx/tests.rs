//! The micro-kernels against their definition: those of the model anywhere, those of the processor where it has them.

use super::*;

/// Reproducible bytes.
fn bytes(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn units() -> Vec<Unit> {
    [Some(Unit::Model), Unit::detect()].into_iter().flatten().collect()
}

/// The sum of a row of tiles and a column of panels, and what it begins with.
fn expect(a: &[u8], b: [&[u8]; 2], (row, column): (usize, usize), down: usize, first: i32) -> i32 {
    let (panel, column) = (b[column / 32], column % 32);
    let steps = panel.len() / PANEL_STEP;
    let term = |k: usize| {
        let (step, k) = (k / 64, k % 64);
        let tile = (step * down + row / 16) * 1024;
        let a = a[tile + row % 16 * 64 + k];
        let b = panel[step * PANEL_STEP + (k / 4 * 32 + column) * 4 + k % 4];
        i32::from(a) * i32::from(b.cast_signed())
    };
    (0..64 * steps).map(term).fold(first, i32::wrapping_add)
}

unsafe extern "C" fn count(with: *mut u8) {
    // SAFETY: that is what the tests pass.
    unsafe { *with.cast::<usize>() += 1 };
}

#[test]
fn kernels_equal_their_definition() {
    let ends = |len: usize, byte: u8| vec![byte; len];
    for unit in units() {
        let session = unit.session();
        for steps in [1, 2, 7, 20] {
            for (a, b) in [
                (bytes(1, steps * 2048), bytes(2, steps * PANEL_STEP)),
                (ends(steps * 2048, 255), ends(steps * PANEL_STEP, 128)),
                (ends(steps * 2048, 255), ends(steps * PANEL_STEP, 127)),
            ] {
                let right = bytes(3, steps * PANEL_STEP);
                let start: Vec<i32> = (0..1024).map(|i| i32::MAX - 1000 * i).collect();
                for add in [false, true] {
                    let (mut sums, mut calls) = (start.clone(), 0_usize);
                    let operands = Operands {
                        a: a.as_ptr(),
                        b: b.as_ptr(),
                        right: right.as_ptr(),
                        steps,
                        sums: sums.as_mut_ptr(),
                        add: add.into(),
                        between: count,
                        with: (&raw mut calls).cast(),
                    };
                    // SAFETY: so many steps of tiles and panels are there, and 1024 sums.
                    unsafe { session.square(&operands) };
                    assert_eq!(calls, steps);
                    for (i, &sum) in sums.iter().enumerate() {
                        let first = if add { start[i] } else { 0 };
                        let place = (i / 32, i % 32);
                        assert_eq!(sum, expect(&a, [&b, &right], place, 2, first), "{unit:?} {i}");
                    }
                    // SAFETY: the same.
                    unsafe { session.wide(&operands) };
                    for (i, &sum) in sums.iter().enumerate() {
                        let place = (i / 64, i % 64);
                        assert_eq!(sum, expect(&a, [&b, &right], place, 1, 0), "{unit:?} {i}");
                    }
                }
            }
        }
    }
}

/// Several sessions of a thread, one inside another.
#[test]
fn the_last_session_releases() {
    for unit in units() {
        let outer = unit.session();
        drop(unit.session());
        let (a, b, mut sums) = (vec![1; 2048], vec![1; PANEL_STEP], vec![0; 1024]);
        let operands = Operands {
            a: a.as_ptr(),
            b: b.as_ptr(),
            right: b.as_ptr(),
            steps: 1,
            sums: sums.as_mut_ptr(),
            add: 0,
            between: count,
            with: std::ptr::null_mut(),
        };
        // SAFETY: a step of tiles and panels is there, and 1024 sums; nothing is called.
        unsafe { outer.wide(&operands) };
        assert!(sums.iter().all(|&sum| sum == 64));
    }
}
