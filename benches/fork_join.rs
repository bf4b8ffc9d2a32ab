//! Work of microseconds shared among threads, beside the ways rayon has for it: `cargo bench --bench
//! fork_join`. Each figure is a median in microseconds, and the ways take turns.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use quantd_kernels::{WorkSlots, fork_join};

#[derive(Debug, Parser)]
struct Options {
    /// Threads of the pool
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Work of one thread alone, in microseconds
    #[arg(long, value_delimiter = ',', default_value = "10,30,100,300,1000")]
    work: Vec<u64>,
    /// Time between one piece of work and the next, in microseconds
    #[arg(long, value_delimiter = ',', default_value = "0,20,200,2000")]
    gaps: Vec<u64>,
    /// Turns of each way
    #[arg(long, default_value_t = 300)]
    turns: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

type Way = fn(usize, &(dyn Fn() + Sync));

const WAYS: [(&str, Way); 4] = [
    ("alone", |_, run| run()),
    ("fork_join", fork_join),
    ("rayon::scope", |helpers, run| {
        rayon::in_place_scope(|scope| {
            (0..helpers).for_each(|_| scope.spawn(|_| run()));
            run();
        });
    }),
    ("rayon::join", join),
];

fn join(helpers: usize, run: &(dyn Fn() + Sync)) {
    if helpers == 0 {
        run();
    } else {
        rayon::join(run, || join(helpers - 1, run));
    }
}

/// Does so many turns of work that each thread takes portions of.
fn share(way: Way, threads: usize, turns: u64) {
    const PORTIONS: usize = 64;
    let next = AtomicUsize::new(0);
    way(threads - 1, &|| {
        while next.fetch_add(1, Ordering::Relaxed) < PORTIONS {
            (0..turns / PORTIONS as u64).for_each(|turn| {
                black_box(turn);
            });
        }
    });
}

/// Nanoseconds of so many turns on one thread.
fn took(turns: u64) -> u64 {
    let begin = Instant::now();
    share(WAYS[0].1, 1, turns);
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn wait(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        spin_loop();
    }
}

/// Median times of each way, in microseconds.
fn medians(options: &Options, turns: u64, gap: Duration) -> [f64; WAYS.len()] {
    let mut times = WAYS.map(|_| Vec::new());
    // A way keeps its threads awake, so that each follows on itself for a while.
    for turn in 0..options.turns * WAYS.len() {
        let way = turn / 50 % WAYS.len();
        wait(gap);
        let begin = Instant::now();
        share(WAYS[way].1, options.threads, turns);
        times[way].push(begin.elapsed().as_secs_f64() * 1e6);
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

#[expect(clippy::print_stdout, reason = "the result of a bench")]
fn main() {
    const MANY: u64 = 1 << 20;
    let options = Options::parse();
    let slots = WorkSlots::new();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .start_handler(move |_| slots.enter())
        .build()
        .expect("threads can be had");
    let nanoseconds = (0..20).map(|_| took(MANY)).min().unwrap_or(1).max(1);
    let row = |cells: [String; WAYS.len()]| cells.map(|cell| format!("{cell:>14}")).concat();
    println!("{:>8} {:>8}{}", "work", "gap", row(WAYS.map(|(name, _)| name.to_owned())));
    for &work in &options.work {
        for &gap in &options.gaps {
            let (turns, pause) = (work * 1000 * MANY / nanoseconds, Duration::from_micros(gap));
            let medians = pool.install(|| medians(&options, turns, pause));
            println!("{work:>8} {gap:>8}{}", row(medians.map(|median| format!("{median:.1}"))));
        }
    }
}
