//! Products on the tile unit.
//!
//! Rows of the left operand are packed into tiles by whichever thread multiplies them, block by block: one thread
//! that packs for another costs more than it saves. A block goes through one panel of 32 columns after the
//! other, 32 rows at a time, each panel in parts of K that stay in the first-level cache. Sums leave the
//! unit for a buffer; cells are made of them while the unit is busy with the next ones.
//!
//! The figures here were measured on Sapphire Rapids.
#![expect(unsafe_code, reason = "micro-kernels take addresses")]

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;

use bytemuck::{Pod, Zeroable};

use crate::amx::{Operands, PANEL_STEP, SQUARE, Session, TILE_BYTES, TILE_ROWS, Unit, WIDE};
use crate::cache::{LINE, prefetch};
use crate::isa::{Isa, Op};

use super::epilogue::{Epilogue, TileOutput, finish_rows};
use super::schedule::Work;
use super::shared::{Shared, share};
use super::terms::{Columns, Divisor};
use super::tile::{Sums, Tile};
use super::{PackedLhs, PackedRhs};

/// Bytes of rows that go through all panels: a quarter of a second-level cache.
const BLOCK_BYTES: usize = 512 << 10;
/// Rows of a block, whatever K is.
const BLOCK_ROWS: [usize; 2] = [64, 512];
/// Steps of a panel that stay in the first-level cache: 40 KiB.
const MAX_PART: usize = 20;
/// Bytes of a right operand that the second-level cache holds; from there on the next panel is fetched ahead.
const CACHED: usize = 3 << 19;
/// Those that each thread may go through beside rows of its own.
const SHARED_BYTES: usize = 5 << 18;
/// Sums that a task makes at least, in squares: its last one waits for no other.
const SQUARES: usize = 8;

/// A line of a tile.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; TILE_BYTES]);

/// The sums of a micro-kernel.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Square([i32; SQUARE[0] * SQUARE[1]]);

impl Square {
    const ZERO: Self = Self([0; SQUARE[0] * SQUARE[1]]);
}

/// What a thread needs.
#[derive(Default)]
struct Scratch<'a> {
    session: Option<Session>,
    /// The first of the rows in `tiles`.
    packed: Option<usize>,
    tiles: Vec<Line>,
    sums: Vec<Square>,
    /// Those of a panel and of the one before.
    columns: [Columns<'a>; 2],
    spare: Sums,
}

/// How a product is shared out: tasks of a block of rows by some panels.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Rows that a micro-kernel takes.
    height: usize,
    /// Rows of a block.
    rows: usize,
    /// Panels of a task.
    panels: usize,
    /// Tasks side by side.
    across: usize,
}

impl Plan {
    fn new(m: usize, b: &PackedRhs, threads: usize) -> Self {
        let height = if m <= WIDE[0] { WIDE[0] } else { SQUARE[0] };
        let panels = b.columns().div_ceil(Tile::OF_UNIT.columns);
        // Each thread packs what it multiplies: rows of its own where all of the right operand stays with it,
        // else few enough to be packed by each.
        let (bytes, own) = match threads {
            1 => (BLOCK_BYTES, m),
            _ if b.bytes() <= SHARED_BYTES => (BLOCK_BYTES, m.div_ceil(threads)),
            _ => (BLOCK_BYTES / 2, m),
        };
        let [least, most] = BLOCK_ROWS;
        let fit = bytes / (steps(b) * TILE_BYTES) / height * height;
        let rows = fit.clamp(least, most).min(own.next_multiple_of(height));
        // Even ones, as the kernel for few rows takes them.
        let wanted = SQUARES.div_ceil(rows / height).next_multiple_of(2);
        let shared = panels.div_ceil(4 * threads).next_multiple_of(2);
        let of_task = wanted.min(shared);
        Self { height, rows, panels: of_task, across: panels.div_ceil(of_task) }
    }

    const fn tasks(self, m: usize) -> usize {
        self.across * m.div_ceil(self.rows)
    }
}

/// Makes a product of which no dimension is 0.
pub(super) fn run<T: Pod + Send, F: Epilogue<T>>(
    work: &Work<'_>,
    unit: Unit,
    out: &Shared<'_, T>,
    finish: &F,
    threads: usize,
) {
    let (m, panels) = (work.a.rows(), work.b.columns().div_ceil(Tile::OF_UNIT.columns));
    let plan = Plan::new(m, work.b, threads);
    share(plan.tasks(m), threads, &|task, scratch: &mut Scratch<'_>| {
        if work.stop.load(Ordering::Relaxed) {
            return;
        }
        let first = task / plan.across * plan.rows;
        let rows = first..m.min(first + plan.rows);
        let from = task % plan.across * plan.panels;
        let task = Task { work, plan, rows, panels: from..panels.min(from + plan.panels) };
        let session = scratch.session.take().unwrap_or_else(|| unit.session());
        if scratch.packed != Some(first) {
            task.pack(&mut scratch.tiles);
            scratch.packed = Some(first);
        }
        if plan.height == WIDE[0] {
            task.wide(&session, scratch, finish, out);
        } else {
            task.squares(&session, scratch, finish, out);
        }
        scratch.session = Some(session);
    });
}

/// Steps of 64 `k`.
fn steps(b: &PackedRhs) -> usize {
    b.panel(0).len() / PANEL_STEP
}

/// A block of rows by some panels.
struct Task<'w, 'a> {
    work: &'w Work<'a>,
    plan: Plan,
    rows: Range<usize>,
    panels: Range<usize>,
}

/// Sums that are to become cells.
#[derive(Clone, Debug, Default)]
struct Waiting {
    /// Which of the buffers they are in.
    slot: usize,
    /// Their rows in the buffer that are left.
    left: Range<usize>,
    /// The first one in the result.
    row: usize,
    /// Whether they are of the panel before.
    before: bool,
}

impl<'w> Task<'w, '_> {
    /// Packs the rows into tiles: of each step those below one another, filled up with zeros.
    fn pack(&self, tiles: &mut Vec<Line>) {
        let Self { work, plan, rows, .. } = self;
        let from = Pack {
            a: work.a,
            rows: rows.clone(),
            height: plan.height,
            steps: steps(work.b),
            tiles,
        };
        work.b.isa().run(from);
    }

    /// Where the sums of some rows of a panel go.
    fn output<'o, T, F>(
        &'o self,
        columns: &'o Columns<'w>,
        rows: Range<usize>,
        sums: &'o mut Sums,
        (finish, out): (&'o F, &'o Shared<'o, T>),
    ) -> TileOutput<'o, T, F> {
        let (terms, width) = (&self.work.terms, Tile::OF_UNIT.columns);
        TileOutput { terms, columns, rows, width, sums, finish, out }
    }

    fn set(&self, columns: &mut Columns<'w>, panel: usize, scaled: Option<Divisor>) {
        columns.set((self.work.a, self.work.b), panel, self.work.extra, scaled);
    }

    /// Up to 16 rows, two panels at a time: each byte of them is read once.
    fn wide<T: Pod, F: Epilogue<T>>(
        &self,
        session: &Session,
        scratch: &mut Scratch<'w>,
        finish: &F,
        out: &Shared<'_, T>,
    ) {
        let Self { work, rows, panels, .. } = self;
        let Scratch { tiles, sums, columns: [columns, _], spare, .. } = scratch;
        sums.resize(1, Square::ZERO);
        let steps = steps(work.b);
        for first in panels.clone().step_by(2) {
            let second = (first + 1).min(panels.end - 1);
            let [left, right] = [first, second].map(|panel| work.b.panel(panel));
            assert!(left.len() == steps * PANEL_STEP && tiles.len() == steps * TILE_ROWS);
            let operands = Operands {
                a: tiles.as_ptr().cast(),
                b: left.as_ptr(),
                right: right.as_ptr(),
                steps,
                sums: sums[0].0.as_mut_ptr(),
                add: 0,
                between: nothing,
                with: std::ptr::null_mut(),
            };
            // SAFETY: tiles and panels have so many steps (asserted; panels are alike), and there are 1024 sums.
            unsafe { session.wide(&operands) };
            for panel in first..=second {
                self.set(columns, panel, F::SCALED.then(|| finish.divisor()));
                let mut output = self.output(columns, rows.clone(), spare, (finish, out));
                let sums = &sums[0].0[(panel - first) * Tile::OF_UNIT.columns..];
                finish_rows(work.b.isa(), &mut output, sums, WIDE[1]);
            }
        }
    }

    /// More rows, 32 at a time.
    fn squares<T: Pod, F: Epilogue<T>>(
        &self,
        session: &Session,
        scratch: &mut Scratch<'w>,
        finish: &F,
        out: &Shared<'_, T>,
    ) {
        let Scratch { tiles, sums, columns, spare, .. } = scratch;
        let (steps, blocks) = (steps(self.work.b), self.rows.len().div_ceil(SQUARE[0]));
        sums.resize(if part(steps) < steps { blocks + 1 } else { 2 }, Square::ZERO);
        let waiting = Waiting::default();
        Squares { task: self, session, finish, out, tiles, sums, spare, columns, own: 0, waiting }
            .run();
    }
}

/// More rows than 16: squares of 32 rows by a panel.
struct Squares<'s, 'w, 'a, T, F> {
    task: &'s Task<'w, 'a>,
    session: &'s Session,
    finish: &'s F,
    out: &'s Shared<'s, T>,
    tiles: &'s [Line],
    /// Of one part of K the sums of a square and of the one before; of several those of all rows,
    /// and of the last square of the panel before.
    sums: &'s mut [Square],
    spare: &'s mut Sums,
    columns: &'s mut [Columns<'w>; 2],
    /// Which of the columns are those of this panel.
    own: usize,
    waiting: Waiting,
}

impl<'w, T: Pod, F: Epilogue<T>> Squares<'_, 'w, '_, T, F> {
    fn blocks(&self) -> usize {
        self.task.rows.len().div_ceil(SQUARE[0])
    }

    fn run(&mut self) {
        for panel in self.task.panels.clone() {
            let scaled = F::SCALED.then(|| self.finish.divisor());
            self.task.set(&mut self.columns[self.own], panel, scaled);
            self.panel(panel);
            self.own = 1 - self.own;
            self.waiting.before = true;
        }
        let Self { task, finish, out, sums, spare, columns, own, waiting, .. } = self;
        let Waiting { slot, left, row, .. } = waiting;
        let rows = *row..*row + left.len();
        let mut output = task.output(&columns[1 - *own], rows, spare, (*finish, *out));
        finish_rows(task.work.b.isa(), &mut output, &sums[*slot].0, SQUARE[1]);
    }

    /// All rows by a panel, part of K by part of K.
    fn panel(&mut self, panel: usize) {
        let steps = steps(self.task.work.b);
        let part = part(steps);
        let b = self.task.work.b;
        let last = panel + 1 == b.columns().div_ceil(Tile::OF_UNIT.columns);
        let mut ahead = b.panel(if last { 0 } else { panel + 1 }).as_ptr();
        // The slots of this panel follow that of the sums that wait.
        let first = self.waiting.slot + 1;
        for begin in (0..steps).step_by(part) {
            let k = begin..steps.min(begin + part);
            for block in 0..self.blocks() {
                let slot = (first + block) % self.sums.len();
                ahead = self.square((panel, block), k.clone(), slot, ahead);
            }
        }
    }

    /// One square; cells are made of the one that waits. Gives what comes next of what is fetched ahead.
    fn square(
        &mut self,
        (panel, block): (usize, usize),
        k: Range<usize>,
        slot: usize,
        ahead: *const u8,
    ) -> *const u8 {
        let (blocks, lines) = (self.blocks(), self.lines());
        let Self { task, session, finish, out, tiles, sums, spare, columns, own, waiting } = self;
        let Task { work, rows, .. } = task;
        let (steps, panel) = (steps(work.b), work.b.panel(panel));
        assert!(tiles.len() == blocks * steps * SQUARE[0], "the rows are packed");
        assert!(panel.len() == steps * PANEL_STEP && k.end <= steps, "panels are as deep as K");
        assert!(slot < sums.len() && (slot != waiting.slot || waiting.left.is_empty()));
        let row = rows.start + block * SQUARE[0];
        let here = row..rows.end.min(row + SQUARE[0]);
        let is_last = k.end == steps;
        // The kernel writes some sums while others are read: all by this address.
        let buffers = sums.as_mut_ptr();
        let mut pending = Pending {
            isa: work.b.isa(),
            output: task.output(
                &columns[if waiting.before { 1 - *own } else { *own }],
                0..0,
                spare,
                (*finish, *out),
            ),
            buffers,
            each: waiting.left.len().div_ceil(k.len()),
            waiting: std::mem::take(waiting),
            soon: if is_last { here.clone() } else { row..row },
            soon_each: here.len().div_ceil(k.len()),
            soon_columns: columns[*own].range.clone(),
            ahead,
            lines,
            panic: None,
        };
        let operands = Operands {
            a: tiles[(block * steps + k.start) * SQUARE[0]..].as_ptr().cast(),
            b: panel[k.start * PANEL_STEP..].as_ptr(),
            right: std::ptr::null(),
            steps: k.len(),
            sums: buffers.wrapping_add(slot).cast(),
            add: usize::from(k.start > 0),
            between: between::<T, F>,
            with: (&raw mut pending).cast(),
        };
        // SAFETY: tiles and panel have the steps of `k`, and there is a buffer of 1024 sums in that slot, which
        // nobody waits for (all asserted); `between` is called with a `Pending` of its types.
        unsafe { session.square(&operands) };
        if let Some(panic) = pending.panic {
            resume_unwind(panic);
        }
        *waiting = match is_last {
            true => Waiting { slot, left: 0..here.len(), row, before: false },
            false => pending.waiting,
        };
        pending.ahead
    }

    /// Lines of the next panel that are fetched each step.
    fn lines(&self) -> usize {
        let is_far = self.task.work.b.bytes() > CACHED;
        if is_far { (PANEL_STEP / LINE / self.blocks()).clamp(2, 16) } else { 0 }
    }
}

/// Steps of a part of K: equal ones.
fn part(steps: usize) -> usize {
    steps.div_ceil(steps.div_ceil(MAX_PART))
}

/// Sums that become cells while the unit is busy with others.
struct Pending<'p, T, F> {
    isa: Isa,
    output: TileOutput<'p, T, F>,
    buffers: *const Square,
    waiting: Waiting,
    /// Rows of them after each step.
    each: usize,
    /// Rows and columns of the result that come next: so many rows a step are fetched.
    soon: Range<usize>,
    soon_each: usize,
    soon_columns: Range<usize>,
    /// What to fetch of the next panel, so many lines a step.
    ahead: *const u8,
    lines: usize,
    /// A defect, which must not pass through the kernel.
    panic: Option<Box<dyn Any + Send>>,
}

impl<T: Pod, F: Epilogue<T>> Pending<'_, T, F> {
    /// What is done after a step.
    fn step(&mut self) {
        for line in 0..self.lines {
            prefetch::<true>(self.ahead.wrapping_add(line * LINE));
        }
        self.ahead = self.ahead.wrapping_add(self.lines * LINE);
        for row in self.soon.by_ref().take(self.soon_each) {
            self.output.out.prefetch(row, self.soon_columns.start, self.soon_columns.len());
        }
        let Waiting { slot, left, row, .. } = &mut self.waiting;
        let now = left.start..left.end.min(left.start + self.each);
        if now.is_empty() {
            return;
        }
        left.start = now.end;
        self.output.rows = *row + now.start..*row + now.end;
        // SAFETY: there is a buffer in that slot, and the kernel that runs writes to another one.
        let sums = unsafe { &*self.buffers.wrapping_add(*slot) };
        finish_rows(self.isa, &mut self.output, &sums.0[now.start * SQUARE[1]..], SQUARE[1]);
    }
}

/// # Safety
/// `with` is a `Pending` of these types.
unsafe extern "C" fn between<T: Pod, F: Epilogue<T>>(with: *mut u8) {
    // SAFETY: `with` is a `Pending` of these types, and nobody else uses it meanwhile.
    let pending = unsafe { &mut *with.cast::<Pending<'_, T, F>>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| pending.step())) {
        pending.panic.get_or_insert(panic);
    }
}

/// What kernels that call nothing are given.
const unsafe extern "C" fn nothing(_: *mut u8) {}

/// Rows to be packed.
struct Pack<'p> {
    a: &'p PackedLhs<'p>,
    rows: Range<usize>,
    height: usize,
    steps: usize,
    tiles: &'p mut Vec<Line>,
}

impl Op for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { a, rows, height, steps, tiles } = self;
        let filled = rows.len().next_multiple_of(height);
        tiles.clear();
        tiles.reserve(filled * steps);
        let lines = &mut tiles.spare_capacity_mut()[..filled * steps];
        for i in 0..filled {
            // Row by row, each through the lines of its place in the tiles.
            let to = lines[i / height * height * steps + i % height..].iter_mut().step_by(height);
            if i < rows.len() {
                let (whole, rest) = a.row(rows.start + i).as_chunks::<TILE_BYTES>();
                assert!(whole.len() + rest.len().min(1) == steps, "rows are as long as K");
                let mut filled = Line::zeroed();
                filled.0[..rest.len()].copy_from_slice(rest);
                let from = whole.iter().map(|&line| Line(line)).chain([filled]);
                to.zip(from.take(steps)).for_each(|(to, from)| {
                    to.write(from);
                });
            } else {
                to.take(steps).for_each(|to| {
                    to.write(Line::zeroed());
                });
            }
        }
        // SAFETY: each of them was written: those of row `i` are `steps`, `height` apart.
        unsafe { tiles.set_len(filled * steps) };
    }
}
