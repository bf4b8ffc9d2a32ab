//! Whatever a request holds, the answer is an answer or an error, and never a panic.
#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use quantd::api::answer::Style;
use quantd::api::context::Context;
use quantd::api::effort::Effort;
use quantd::api::fields::Query;
use quantd::api::payload::{Format, Payload};
use quantd::service::{Command, Operation, execute};
use quantd_codec::Limits;
use quantd_codec::encoding::Encoding;
use quantd_core::Task;
use quantd_core::tensor::Buffer;
use quantd_kernels::Isa;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    operation: u8,
    format: u8,
    answer: u8,
    encoding: u8,
    query: &'a str,
    body: &'a [u8],
}

const FORMATS: [Format; 4] = [Format::Json, Format::Npy, Format::Safetensors, Format::Raw];
const OPERATIONS: [Operation; 5] = [
    Operation::Quantize,
    Operation::Dequantize,
    Operation::Compare,
    Operation::Inspect,
    Operation::Matmul,
];

fuzz_target!(|input: Input<'_>| {
    let pick = |byte: u8, count: usize| usize::from(byte) % count;
    let Ok(query) = Query::new(input.query) else { return };
    let operation = OPERATIONS[pick(input.operation, OPERATIONS.len())];
    let answers = operation.formats();
    let command = Command {
        operation,
        payload: Payload {
            body: Arc::new(Buffer::copy_of(input.body)),
            format: FORMATS[pick(input.format, FORMATS.len())],
            // Mostly none: random bytes are no compressed stream.
            encoding: if input.encoding > 250 { Encoding::Gzip } else { Encoding::Identity },
            // A quarter of them are forms.
            boundary: (input.encoding % 4 == 1).then(|| "b".to_owned()),
            query,
        },
        format: answers[pick(input.answer, answers.len())],
        style: Style { pretty: input.answer > 127, ..Style::PLAIN },
    };
    let limits = Limits {
        max_bytes: 1 << 20,
        max_tensors: 64,
        max_elements: 1 << 16,
        max_header_bytes: 1 << 16,
    };
    let mut context = Context {
        limits: &limits,
        task: &Task::new(Isa::best()),
        spare: 64 << 20,
        grow: &mut |_| Ok(()),
        effort: Effort::UNBOUNDED,
    };
    drop(execute(command, &mut context));
});
