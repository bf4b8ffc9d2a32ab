//! The vocabulary of requests: options in, documents out, errors between.
//!
//! Turns decoded fields into schemes and results into JSON or tensors. Knows
//! nothing of HTTP; the offline command uses it as the server does.

pub mod answer;
pub mod calibrators;
mod coded;
pub mod compare;
pub mod context;
pub mod dequantize;
pub mod documents;
pub mod effort;
pub mod error;
pub mod fields;
mod form;
pub mod formats;
pub mod guess;
pub mod inspect;
pub mod layers;
pub mod matmul;
pub mod name;
pub mod oip;
pub mod options;
mod passed;
mod patterns;
pub mod payload;
pub mod presets;
pub mod quantize;
pub mod report;
pub mod samples;
pub mod schemas;
mod select;
pub mod shorthand;
