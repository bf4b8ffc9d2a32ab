//! The operations on tensors without a server: the same core, files in place of requests.

use std::path::Path;
use std::sync::Arc;

use crate::api::answer::{Answer, Style};
use crate::api::context::Context;
use crate::api::effort::Effort;
use crate::api::error::Error;
use crate::api::fields::Query;
use crate::api::payload::{Format, Payload};
use crate::api::samples;
use crate::config::{self, Convert, Input, Look, Sample};
use crate::service::{self, Command, Operation};
use crate::telemetry;
use quantd_codec::Limits;
use quantd_codec::encoding::Encoding;
use quantd_core::Task;
use quantd_kernels::WorkSlots;

use super::files::{self, Progress};
use super::{Failure, print, report};

/// Quantizes a file into another one and says what was lost.
pub(super) fn quantize(options: &Convert) -> Result<(), Failure> {
    convert(options, Operation::Quantize)
}

/// Restores real numbers into a file.
pub(super) fn dequantize(options: &Convert) -> Result<(), Failure> {
    convert(options, Operation::Dequantize)
}

fn convert(options: &Convert, operation: Operation) -> Result<(), Failure> {
    let Convert { input, output, format, scheme, quiet } = options;
    if files::is_same_file(&input.input, output) {
        return Err(Failure::usage("the output is the input; name another file"));
    }
    let format = match format {
        Some(format) => (*format).into(),
        None => files::format_of(output)?,
    };
    let progress = Progress::new(*quiet);
    let query = query(&input.set, scheme.as_deref())?;
    let answer = carry_out(input, &query, (operation, format), &progress)?;
    files::write(output, &answer.segments, &progress)?;
    progress.clear();
    if *quiet {
        return Ok(());
    }
    let text = report::written(&answer, output)?;
    if files::is_stream(output) {
        telemetry::complain(text.trim_end());
        return Ok(());
    }
    print(&text)
}

/// Prints a table of schemes.
pub(super) fn compare(options: &Look) -> Result<(), Failure> {
    look(options, Operation::Compare, report::compared)
}

/// Prints statistics.
pub(super) fn inspect(options: &Look) -> Result<(), Failure> {
    look(options, Operation::Inspect, report::inspected)
}

fn look(
    options: &Look,
    operation: Operation,
    table: fn(&[u8]) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let progress = Progress::new(options.json);
    let query = query(&options.input.set, None)?;
    let answer = carry_out(&options.input, &query, (operation, Format::Json), &progress)?;
    progress.clear();
    let document = answer.segments.concat();
    if !options.json {
        return print(&table(&document)?);
    }
    let text = String::from_utf8_lossy(&document);
    print(&format!("{}\n", text.trim_end()))
}

/// Writes a sample to a file.
pub(super) fn sample(options: &Sample) -> Result<(), Failure> {
    let sample = samples::find(&options.name).map_err(|error| refused(&error))?;
    let format = files::format_of(&options.output)?;
    let answer = sample.answer(format, &mut |_| Ok(())).map_err(|error| refused(&error))?;
    files::write(&options.output, &answer.segments, &Progress::new(true))
}

/// Carries the operation out on the input as the server would, without its bounds.
fn carry_out(
    input: &Input,
    query: &str,
    (operation, format): (Operation, Format),
    progress: &Progress,
) -> Result<Answer, Failure> {
    let body = files::read(&input.input, progress)?;
    let has_dtype = input.set.iter().any(|pair| pair.starts_with("dtype="));
    let from = files::format_in(&input.input, body.bytes(), has_dtype);
    let payload = Payload {
        body: Arc::new(body),
        format: from,
        encoding: Encoding::Identity,
        boundary: None,
        query: Query::new(query).map_err(|error| refused(&error))?,
    };
    let command = Command { operation, payload, format, style: Style::PLAIN };
    let slots = WorkSlots::new();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(config::threads(input.threads))
        .start_handler(move |_| slots.enter())
        .build()
        .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    progress.work(operation.name());
    let answer = pool.install(|| {
        let limits = Limits {
            max_bytes: usize::MAX,
            max_tensors: usize::MAX,
            max_elements: usize::MAX,
            ..Limits::default()
        };
        let mut grow = |_| Ok(());
        let mut context = Context {
            limits: &limits,
            task: &Task::new(input.isa),
            spare: 0,
            grow: &mut grow,
            effort: Effort::UNBOUNDED,
        };
        service::execute(command, &mut context)
    });
    answer.map_err(|error| Failure::usage(describe(&error, &input.input)))
}

fn describe(error: &Error, input: &Path) -> String {
    // A fault of the file, and not of an option, is told with the file's name.
    let name = if error.place.is_none() && !files::is_stream(input) {
        format!("{}: ", input.display())
    } else {
        String::new()
    };
    let cure = if error.cure.is_empty() { String::new() } else { format!(" ({})", error.cure) };
    format!("{name}{error}{cure}")
}

fn refused(error: &Error) -> Failure {
    Failure::usage(format!("{} ({})", error.detail, error.cure))
}

/// The options as the query string that says the same.
fn query(set: &[String], scheme: Option<&str>) -> Result<String, Failure> {
    let mut pairs = Vec::new();
    if let Some(scheme) = scheme {
        pairs.push(format!("preset={}", encode(scheme)));
    }
    for pair in set {
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
