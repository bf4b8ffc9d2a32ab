//! Files and streams that tensors come from and go to, and how far that is.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};

use crate::api::payload::Format;
use quantd_codec::sniff::{self, Known};
use quantd_core::tensor::Buffer;

use super::Failure;

/// Standard input or output in place of a file.
const STREAM: &str = "-";

/// Whether the path stands for standard input or output.
pub(super) fn is_stream(path: &Path) -> bool {
    path == Path::new(STREAM)
}

/// Whether both names lead to one file, which writing would destroy.
pub(super) fn is_same_file(input: &Path, output: &Path) -> bool {
    let is_file = |path: &Path| !is_stream(path) && path.is_file();
    match (input.canonicalize(), output.canonicalize()) {
        (Ok(input), Ok(output)) => is_file(&input) && input == output,
        _ => false,
    }
}

/// The format that the name of an output asks for.
pub(super) fn format_of(output: &Path) -> Result<Format, Failure> {
    if is_stream(output) {
        return Ok(Format::Safetensors);
    }
    match output.extension().and_then(|extension| extension.to_str()) {
        // Pipes and devices have no extension.
        None | Some("safetensors") => Ok(Format::Safetensors),
        Some("npy") => Ok(Format::Npy),
        Some("json") => Ok(Format::Json),
        Some("bin" | "raw") => Ok(Format::Raw),
        Some(_) => Err(Failure::usage(format!(
            "{} does not say its format; end it in .safetensors, .npy, .json or .bin, or give --format",
            output.display()
        ))),
    }
}

/// The format of an input by its first bytes, or its name where they do not tell.
pub(super) fn format_in(input: &Path, body: &[u8], has_dtype: bool) -> Format {
    let is_npy = input.extension().is_some_and(|extension| extension == "npy");
    match sniff::look(body).and_then(|look| look.known) {
        Some(Known::Npy) => Format::Npy,
        Some(Known::Safetensors) => Format::Safetensors,
        // Elements may look like text.
        _ if has_dtype => Format::Raw,
        _ if is_npy => Format::Npy,
        Some(Known::Json) => Format::Json,
        None => Format::Safetensors,
    }
}

/// What is shown on a terminal while work goes on; nothing elsewhere.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Shown on standard error if that is a terminal, unless `quiet`.
    pub(super) fn new(quiet: bool) -> Self {
        if quiet || !io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::no_length();
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
    }

    fn style(&self, template: &str, message: impl Into<Cow<'static, str>>) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_message(message);
        self.bar.set_position(0);
    }

    /// Bytes go by: of how many, where that is known.
    fn transfer(&self, message: &'static str, len: Option<u64>) {
        match len {
            Some(len) => {
                self.bar.set_length(len);
                self.style("{msg:10} {bar:40} {bytes}/{total_bytes} {bytes_per_sec}", message);
            }
            None => self.style("{msg:10} {spinner} {bytes} {bytes_per_sec}", message),
        }
    }

    /// Work whose end is not known.
    pub(super) fn work(&self, message: impl Into<Cow<'static, str>>) {
        self.style("{msg:10} {spinner} {elapsed}", message);
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// A failure of the system in one line, about the path.
fn failed(verb: &str, path: &Path, error: &io::Error) -> Failure {
    let name = if is_stream(path) { Cow::Borrowed("the stream") } else { path.to_string_lossy() };
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    Failure::new(format!("cannot {verb} {name}: {text}"))
}

/// Reads a file or standard input whole.
pub(super) fn read(path: &Path, progress: &Progress) -> Result<Buffer, Failure> {
    let read = || {
        if is_stream(path) {
            progress.transfer("reading", None);
            return read_all(io::stdin().lock(), 0, progress);
        }
        let file = File::open(path)?;
        let found = file.metadata()?;
        let len = found.is_file().then_some(found.len());
        progress.transfer("reading", len);
        read_all(file, len.unwrap_or(0), progress)
    };
    read().map_err(|error| failed("read", path, &error))
}

fn read_all(from: impl Read, len: u64, progress: &Progress) -> io::Result<Buffer> {
    let mut buffer = Buffer::with_capacity(usize::try_from(len).unwrap_or(0));
    let mut from = progress.bar.wrap_read(from);
    let mut block = vec![0; 1 << 20];
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(buffer),
            Ok(n) => buffer.extend(&block[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes a file or standard output. A file is written beside its final name first, so that a failure
/// leaves nothing half written.
pub(super) fn write(path: &Path, segments: &[Bytes], progress: &Progress) -> Result<(), Failure> {
    let len = segments.iter().map(|segment| segment.len() as u64).sum();
    progress.transfer("writing", Some(len));
    let write = || {
        if is_stream(path) {
            return write_all(io::stdout().lock(), segments, progress);
        }
        if path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            // A device or a pipe is written to; a file in its place would break it.
            return write_all(File::options().write(true).open(path)?, segments, progress);
        }
        replace(path, segments, progress)
    };
    write().map_err(|error| failed("write", path, &error))
}

fn write_all(to: impl Write, segments: &[Bytes], progress: &Progress) -> io::Result<()> {
    let mut to = BufWriter::new(progress.bar.wrap_write(to));
    segments.iter().try_for_each(|segment| to.write_all(segment))?;
    to.flush()
}

fn replace(path: &Path, segments: &[Bytes], progress: &Progress) -> io::Result<()> {
    // What a link leads to is replaced, not the link.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut staging = target.as_os_str().to_owned();
    staging.push(".partial");
    let result = (|| {
        write_all(File::create(&staging)?, segments, progress)?;
        File::open(&staging)?.sync_all()?;
        std::fs::rename(&staging, &target)
    })();
    if result.is_err() {
        drop(std::fs::remove_file(&staging));
    }
    result
}
