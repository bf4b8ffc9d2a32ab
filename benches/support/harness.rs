//! What the benches of kernels share: options, thread pools, timing, test
//! data, and the conversation with `benches/compare/run`.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use clap::Parser;
use quantd_kernels::{BufferPool, Isa, WorkSlots};
use rayon::ThreadPool;

/// Options of a bench.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Instruction sets, all of this machine by default
    #[arg(long, value_delimiter = ',', value_parser = isa)]
    isa: Vec<Isa>,
    /// Numbers of threads
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Operations, all by default
    #[arg(long, value_delimiter = ',')]
    ops: Vec<String>,
    /// Shapes (1x768x768) or numbers of elements, all by default
    #[arg(long, value_delimiter = ',')]
    shapes: Vec<String>,
    /// Seconds spent on each figure, warming up excluded
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Answers requests on standard input, "op shape" a line, with seconds a call
    #[arg(long)]
    serve: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn isa(name: &str) -> Result<Isa, String> {
    let names = || Isa::available().map(Isa::name).collect::<Vec<_>>().join(", ");
    Isa::by_name(name).ok_or_else(|| format!("this machine has {}", names()))
}

/// One figure to be measured: the work of one call, to be called again and again.
pub(crate) type Call = Box<dyn FnMut() + Send>;

/// What a bench can do.
pub(crate) trait Suite: Sync {
    /// Names of all operations.
    fn ops(&self) -> Vec<String>;
    /// All shapes.
    fn shapes(&self) -> Vec<String>;
    /// Makes the operands of a case and checks its result once.
    ///
    /// # Errors
    /// What is wrong with the name or the shape.
    fn case(&self, isa: Isa, op: &str, shape: &[usize]) -> Result<Call, String>;
    /// Measures a limit of the machine, in seconds a call of the same work.
    ///
    /// # Errors
    /// What is wrong with the name or the shape, or missing from the machine.
    fn limit(&self, op: &str, shape: &[usize], meter: &Meter<'_>) -> Result<f64, String>;
    /// One line about a case: its rate, and the limits it runs against.
    fn line(&self, op: &str, shape: &[usize], seconds: f64, meter: &Meter<'_>) -> String;
}

/// How to measure: where, for how long, for which instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter<'a> {
    /// The threads.
    pub(crate) pool: &'a ThreadPool,
    /// Seconds spent on each figure.
    pub(crate) seconds: f64,
    /// The instruction set.
    pub(crate) isa: Isa,
}

impl Meter<'_> {
    /// Median time of a call, in seconds, on the pool.
    fn time(&self, call: &mut Call) -> f64 {
        self.pool.install(|| {
            let budget = Duration::from_secs_f64(self.seconds);
            let begin = Instant::now();
            // At least one call to warm up, and as many as fit in a tenth of the time.
            loop {
                call();
                if begin.elapsed() > budget / 10 {
                    break;
                }
            }
            let mut times = Vec::new();
            let begin = Instant::now();
            while times.is_empty() || begin.elapsed() < budget {
                let start = Instant::now();
                call();
                times.push(start.elapsed().as_secs_f64());
            }
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        })
    }

    /// Calls a second of all threads together, each of which has a state of
    /// its own and knows of no other: what hand-offs cost is left out.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no limits are known"))]
    pub(crate) fn rate<S>(
        &self,
        prepare: impl Fn() -> S + Sync,
        call: impl Fn(&mut S) + Sync,
    ) -> f64 {
        let budget = Duration::from_secs_f64(self.seconds);
        let rates = self.pool.broadcast(|_| {
            let mut state = prepare();
            call(&mut state);
            // The others may still prepare; what counts begins when all are at work.
            let warm = Instant::now();
            while warm.elapsed() < budget / 10 {
                call(&mut state);
            }
            let (begin, mut calls) = (Instant::now(), 0_u32);
            while calls == 0 || begin.elapsed() < budget {
                call(&mut state);
                calls += 1;
            }
            f64::from(calls) / begin.elapsed().as_secs_f64()
        });
        rates.iter().sum()
    }
}

/// Runs a bench as its options say.
pub(crate) fn run(suite: &impl Suite) {
    let mut options = Options::parse();
    if options.isa.is_empty() {
        options.isa = if options.serve { vec![Isa::best()] } else { Isa::available().collect() };
    }
    if options.ops.is_empty() {
        options.ops = suite.ops();
    }
    if options.shapes.is_empty() {
        options.shapes = suite.shapes();
    }
    if options.serve {
        serve(suite, &options);
        return;
    }
    for &threads in &options.threads {
        let pool = pool(threads);
        for &isa in &options.isa {
            let meter = Meter { pool: &pool, seconds: options.seconds, isa };
            for name in &options.shapes {
                for op in &options.ops {
                    let figure = shape(name).and_then(|shape| {
                        let mut case = pool.install(|| suite.case(isa, op, &shape))?;
                        let seconds = meter.time(&mut case);
                        drop(case);
                        Ok(suite.line(op, &shape, seconds, &meter))
                    });
                    let figure = figure.unwrap_or_else(|reason| format!("! {reason}"));
                    say(&format!("quantd-{} {op} {name} {threads}t {figure}", isa.name()));
                }
            }
        }
    }
}

/// Bytes of memory that are kept for the next result.
const KEPT: usize = 1 << 30;

/// Threads as the server has them under load. A peer keeps memory in its arena.
fn pool(threads: usize) -> ThreadPool {
    let (buffers, slots) = (BufferPool::default(), WorkSlots::new());
    buffers.set_limit(|| KEPT);
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(move |_| {
        buffers.enter();
        slots.enter();
    });
    builder.build().expect("threads can be had")
}

#[expect(clippy::print_stdout, reason = "the result of a bench")]
fn say(line: &str) {
    println!("{line}");
    // Nobody is left to tell when that fails.
    drop(std::io::stdout().flush());
}

fn shape(name: &str) -> Result<Vec<usize>, String> {
    let number = |part: &str| part.parse().map_err(|_| format!("not a shape: {name}"));
    name.split('x').map(number).collect()
}

/// Answers until standard input ends. The last case is kept, as rounds ask for
/// the same one again and again.
fn serve(suite: &impl Suite, options: &Options) {
    let (pool, isa) = (pool(options.threads[0]), options.isa[0]);
    let meter = Meter { pool: &pool, seconds: options.seconds, isa };
    say(&format!("quantd {}", isa.name()));
    let mut kept: Option<(String, Call)> = None;
    for request in std::io::stdin().lock().lines().map_while(Result::ok) {
        let answer = (|| {
            let (op, shape_name) = request.split_once(' ').ok_or("a request is: op shape")?;
            let shape = shape(shape_name)?;
            if op.starts_with("limit") {
                return suite.limit(op, &shape, &meter);
            }
            let call = match kept.take() {
                Some((name, call)) if name == request => call,
                _ => pool.install(|| suite.case(isa, op, &shape))?,
            };
            let (_, call) = kept.insert((request.clone(), call));
            Ok(meter.time(call))
        })();
        say(&answer
            .map_or_else(|reason: String| format!("! {reason}"), |seconds| format!("{seconds:e}")));
    }
}

/// Numbers of a small generator, the same in every run.
pub(crate) fn bits() -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    })
}

/// Numbers with mean 0 and deviation 1, nearly normal.
pub(crate) fn reals(count: usize) -> Vec<f32> {
    let sum = |bits: u64| {
        [bits, bits >> 16, bits >> 32, bits >> 48]
            .map(|bits| (bits & 0xffff) as f32)
            .iter()
            .sum::<f32>()
    };
    // The sum of four uniform numbers has a deviation of 2^16 / sqrt(3).
    let normal = |bits| (sum(bits) - 131_070.0) * (1.732_050_8 / 65_536.0);
    bits().map(normal).take(count).collect()
}
