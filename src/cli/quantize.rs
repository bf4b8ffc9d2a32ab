//! `quantd quantize`: the same core without a server.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::api::error::Error;
use crate::api::payload::{Context, Format, Payload};
use crate::codec::encoding::Encoding;
use crate::codec::{Limits, npy};
use crate::config::{self, Quantize};
use crate::quant::Cancel;
use crate::service::{self, Command, Operation};
use crate::tensor::Buffer;

use super::Failure;

/// Reads the file, quantizes it and writes the answer beside its final name
/// first, so that a failure leaves nothing half written.
pub(super) fn run(options: &Quantize) -> Result<(), Failure> {
    if is_same_file(&options.input, &options.output) {
        return Err(Failure::usage("the output is the input; name another file"));
    }
    options.isa.select();
    let bar = progress();
    let body = read(&options.input, &bar)
        .map_err(|error| Failure::new(format!("cannot read the input: {error}")))?;
    let is_npy = body.bytes().starts_with(npy::MAGIC)
        || options.input.extension().is_some_and(|extension| extension == "npy");
    let format = if is_npy { Format::Npy } else { Format::Safetensors };
    let command = Command {
        operation: Operation::Quantize,
        payload: Payload { body, format, encoding: Encoding::Identity, query: query(options)? },
        format: Format::Safetensors,
        encoding: Encoding::Identity,
    };
    let threads = config::threads(options.threads);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    bar.set_message("quantizing");
    let answer = pool
        .install(|| {
            let limits = Limits {
                max_bytes: usize::MAX,
                max_tensors: usize::MAX,
                max_elements: usize::MAX,
                ..Limits::default()
            };
            let mut grow = |_| Ok(());
            let mut context =
                Context { limits: &limits, cancel: &Cancel::default(), spare: 0, grow: &mut grow };
            service::execute(command, &mut context)
        })
        .map_err(|error| Failure::usage(describe(&error)))?;
    bar.set_message("writing");
    bar.set_length(answer.len() as u64);
    bar.set_position(0);
    write(&options.output, &answer.segments, &bar)
        .map_err(|error| Failure::new(format!("cannot write the output: {error}")))?;
    bar.finish_and_clear();
    Ok(())
}

/// Whether both names lead to one file, which writing would destroy.
fn is_same_file(input: &Path, output: &Path) -> bool {
    match (input.canonicalize(), output.canonicalize()) {
        (Ok(input), Ok(output)) => input == output,
        _ => false,
    }
}

fn describe(error: &Error) -> String {
    if error.cure.is_empty() { error.to_string() } else { format!("{error} ({})", error.cure) }
}

/// A bar on a terminal, nothing elsewhere.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let style =
        ProgressStyle::with_template("{msg:10} {bar:40} {bytes}/{total_bytes} {bytes_per_sec}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn read(path: &Path, bar: &ProgressBar) -> std::io::Result<Buffer> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    bar.set_length(len);
    bar.set_message("reading");
    let mut buffer = Buffer::with_capacity(usize::try_from(len).unwrap_or(0));
    let mut file = bar.wrap_read(file);
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(buffer),
            n => buffer.extend(&block[..n]),
        }
    }
}

fn write(path: &Path, segments: &[bytes::Bytes], bar: &ProgressBar) -> std::io::Result<()> {
    if path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        // A device or a pipe is written to; a file in its place would break it.
        let mut out = bar.wrap_write(File::options().write(true).open(path)?);
        return segments.iter().try_for_each(|segment| out.write_all(segment));
    }
    // What a link leads to is replaced, not the link.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let path = target.as_path();
    let mut staging = path.as_os_str().to_owned();
    staging.push(".partial");
    let result = (|| {
        let mut out = BufWriter::new(bar.wrap_write(File::create(&staging)?));
        segments.iter().try_for_each(|segment| out.write_all(segment))?;
        out.flush()?;
        File::open(&staging)?.sync_all()?;
        std::fs::rename(&staging, path)
    })();
    if result.is_err() {
        drop(std::fs::remove_file(&staging));
    }
    result
}

/// The options as the query string that says the same.
fn query(options: &Quantize) -> Result<String, Failure> {
    let mut pairs = Vec::new();
    if let Some(scheme) = &options.scheme {
        pairs.push(format!("preset={}", encode(scheme)));
    }
    for pair in &options.set {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Failure::usage("--set takes FIELD=VALUE, such as bits=4"));
        };
        pairs.push(format!("{}={}", encode(name), encode(value)));
    }
    Ok(pairs.join("&"))
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
