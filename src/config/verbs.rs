//! Options of the verbs that work on files.

use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};

use crate::api::payload::Format;
use quantd_kernels::Isa;

use super::values;

/// Where tensors come from, and how they are worked on.
#[derive(Args, Debug)]
pub struct Input {
    /// The file: `.npy`, `.safetensors` or a JSON request; `-` for standard input.
    pub input: PathBuf,
    /// An option of the request, such as `bits=4`; may be given several times.
    #[arg(short, long = "set", value_name = "FIELD=VALUE")]
    pub set: Vec<String>,
    /// Compute threads; 0 takes one a core.
    #[arg(long, env = "QUANTD_THREADS", default_value_t = 0,
        value_parser = value_parser!(u64).range(0..=1024))]
    pub threads: u64,
    /// Instruction set of the kernels: auto, or one that the machine has.
    #[arg(long, env = "QUANTD_ISA", default_value = "auto", value_parser = values::isa())]
    pub isa: Isa,
}

/// Options of `quantd quantize` and `quantd dequantize`.
#[derive(Args, Debug)]
pub struct Convert {
    /// The input.
    #[command(flatten)]
    pub input: Input,
    /// Where the answer goes: `.safetensors`, `.npy`, `.json` or `.bin`; `-` for standard output.
    #[arg(short, long)]
    pub output: PathBuf,
    /// Format of the answer, where the name of the output does not say it.
    #[arg(long, value_enum)]
    pub format: Option<FileFormat>,
    /// Preset; `--set` changes its fields.
    #[arg(long, value_parser = values::preset())]
    pub scheme: Option<String>,
    /// Print no report.
    #[arg(short, long)]
    pub quiet: bool,
}

/// Options of `quantd compare` and `quantd inspect`.
#[derive(Args, Debug)]
pub struct Look {
    /// The input.
    #[command(flatten)]
    pub input: Input,
    /// Print the JSON document that the server would answer, in place of a table.
    #[arg(long)]
    pub json: bool,
}

/// Options of `quantd sample`.
#[derive(Args, Debug)]
pub struct Sample {
    /// Which one.
    #[arg(value_parser = values::sample())]
    pub name: String,
    /// Where it goes: `.npy`, `.safetensors`, `.json` or `.bin`; `-` for standard output.
    #[arg(short, long)]
    pub output: PathBuf,
}

/// Formats of files.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FileFormat {
    /// Codes, scales and zero points, with scheme and report in the metadata.
    Safetensors,
    /// One tensor, as NumPy reads it.
    Npy,
    /// All of it as text.
    Json,
    /// The elements of one tensor alone.
    Raw,
}

impl From<FileFormat> for Format {
    fn from(format: FileFormat) -> Self {
        match format {
            FileFormat::Safetensors => Self::Safetensors,
            FileFormat::Npy => Self::Npy,
            FileFormat::Json => Self::Json,
            FileFormat::Raw => Self::Raw,
        }
    }
}
