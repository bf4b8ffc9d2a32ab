//! What a request reserves covers what it takes: every operation is carried out under an allocator that counts.
//!
//! Tensors are small enough that buffers come from the allocator and not from the system, and large enough that
//! what does not grow with them is lost in [`SLACK`].

mod counted;

use std::sync::Arc;

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

/// What a request may take beside what it reserves, whatever its size: rooms of threads, small documents.
const SLACK: usize = 640 << 10;
/// Steps of the longest sums.
const K: usize = 1 << 15;
/// Elements of a tensor; as F64 they are 1 MiB.
const N: usize = 1 << 17;

/// A request: what to do, format and query of the body, the body, format and coding of the answer.
#[derive(Clone)]
struct Case {
    operation: Operation,
    input: Format,
    query: String,
    body: Vec<u8>,
    output: Format,
    encoding: Encoding,
}

/// Bytes that were reserved and the most that were taken, or what was wrong.
fn measure(case: &Case) -> (usize, usize, Option<String>) {
    let limits = Limits::default();
    let task = Task::new(Isa::best());
    let reserved = case.operation.cost(case.input, case.body.len());
    let mut grown = 0;
    let mut grow = |bytes| {
        grown += bytes;
        Ok(())
    };
    let before = counted::begin();
    let body = Arc::new(Buffer::copy_of(&case.body));
    let spare = reserved - body.bytes().len();
    let (grow, effort) = (&mut grow, Effort::UNBOUNDED);
    let mut context = Context { limits: &limits, task: &task, spare, grow, effort };
    let payload = Payload {
        body,
        format: case.input,
        encoding: Encoding::Identity,
        boundary: None,
        query: Query::new(&case.query).expect("a query"),
    };
    let command = Command {
        operation: case.operation,
        payload,
        format: case.output,
        style: Style { pretty: false, encoding: case.encoding },
    };
    let answer = execute(command, &mut context);
    let most = counted::most() - before;
    (reserved + grown, most, answer.err().map(|error| format!("{error:?}")))
}

/// Numbers whose text is long: none is the same, none is round.
fn noise() -> impl Iterator<Item = f64> {
    (1_u32..).map(|i| f64::from(i.wrapping_mul(2_654_435_761)) / 7e9 - 0.3)
}

fn f32s(n: usize) -> Vec<u8> {
    #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
    noise().take(n).flat_map(|x| (x as f32).to_le_bytes()).collect()
}

fn f64s(n: usize) -> Vec<u8> {
    noise().take(n).flat_map(f64::to_le_bytes).collect()
}

fn case(operation: Operation, query: &str, body: Vec<u8>, output: Format) -> Case {
    let input = Format::Raw;
    Case { operation, input, query: query.to_owned(), body, output, encoding: Encoding::Identity }
}

fn json(operation: Operation, body: String, output: Format) -> Case {
    Case { input: Format::Json, ..case(operation, "", body.into_bytes(), output) }
}

fn quantizations() -> Vec<Case> {
    let schemes = [
        "",
        "&bits=16",
        "&granularity=channel&axis=0",
        "&granularity=channel&axis=1&per_slice=true",
        "&granularity=token&per_slice=true",
        "&group_size=1",
        "&group_size=2&bits=4&packed=true",
        "&granularity=block&block_shape=1,2",
        "&range=mse",
        "&range=mse&granularity=channel&axis=1",
        "&range=percentile&percentile=99",
        "&range=percentile&percentile=99&granularity=channel&axis=1",
        "&range=entropy_tensorrt",
        "&range=cross_entropy&axis=0",
        "&range=cross_entropy&granularity=channel&axis=1",
    ];
    let formats = [Format::Json, Format::Npy, Format::Safetensors];
    let mut cases = Vec::new();
    for (scheme, output) in schemes.iter().flat_map(|scheme| formats.map(|output| (scheme, output)))
    {
        for (dtype, body) in [("F32", f32s(N)), ("F64", f64s(N)), ("F16", f32s(N / 2))] {
            let query = format!("dtype={dtype}&shape=512,{}{scheme}&nan=zero", N / 512);
            cases.push(case(Operation::Quantize, &query, body, output));
        }
    }
    cases
}

fn dequantizations() -> Vec<Case> {
    let mut cases = Vec::new();
    for query in [
        "&scale=0.1234567&output_dtype=F64",
        "&scale=0.1234567&scale_dtype=F64",
        "&scale=0.1234567&scale_dtype=F64&output_dtype=F16",
        "&scale=0.1234567&output_dtype=BF16",
        "&scale=0.1234567&granularity=group&axis=-1&group_size=1&scale_dtype=F64",
    ] {
        for output in [Format::Json, Format::Npy, Format::Raw] {
            let codes: Vec<u8> = (0..=255).cycle().take(N).collect();
            let query = format!("dtype=I8&shape={N}{query}");
            cases.push(case(Operation::Dequantize, &query, codes, output));
        }
    }
    let scales: Vec<String> = noise().take(N / 4).map(|x| format!("{}", x.abs() + 0.1)).collect();
    let codes = vec!["1"; N / 4].join(",");
    let body = format!(
        "{{\"codes\":[{codes}],\"scale\":[{}],\"zero_point\":[{codes}],\"scale_dtype\":\"F64\",\
         \"scheme\":{{\"granularity\":\"channel\",\"axis\":0}}}}",
        scales.join(",")
    );
    cases.push(json(Operation::Dequantize, body, Format::Json));
    let codes = vec!["1"; 2 * N].join(",");
    let body = format!("{{\"codes\":[{codes}],\"scale\":0.1,\"scale_dtype\":\"F64\"}}");
    cases.push(json(Operation::Dequantize, body, Format::Json));
    cases
}

fn products() -> Vec<Case> {
    let mut cases = Vec::new();
    let ones = |n: usize| vec!["1"; n].join(",");
    for report in [false, true] {
        for output in [Format::Json, Format::Npy] {
            for (a, b, n, k) in [
                (format!("[{N},1]"), "[1,1]".to_owned(), N, 1),
                (format!("[{N},1,1]"), "[1,1,1]".to_owned(), N, 1),
                (format!("[1,{K}]"), format!("[{K},1]"), K, K),
                ("[256,1]".to_owned(), "[1,512]".to_owned(), 256, 512),
                (format!("[{},2,1]", N / 8), format!("[{},1,2]", N / 8), N / 4, N / 4),
            ] {
                let body = format!(
                    "{{\"a\":{{\"shape\":{a},\"data\":[{}]}},\"b\":{{\"shape\":{b},\"data\":[{}]}},\"report\":{report}}}",
                    ones(n),
                    ones(k)
                );
                cases.push(json(Operation::Matmul, body, output));
            }
        }
    }
    cases
}

fn looks() -> Vec<Case> {
    let mut cases = Vec::new();
    for query in [
        "",
        "&granularity=channel&axis=0&bins=1",
        "&granularity=channel&axis=0&bins=1000",
        "&granularity=channel&axis=1",
        "&granularity=group&axis=-1&group_size=16&bins=4&percentiles=1",
    ] {
        for (dtype, body) in [("F32", f32s(N)), ("F64", f64s(N)), ("F16", f32s(N / 2))] {
            let query = format!("dtype={dtype}&shape=512,{}{query}", N / 512);
            cases.push(case(Operation::Inspect, &query, body, Format::Json));
        }
    }
    for body in [("F32", f32s(N)), ("F64", f64s(N)), ("BF16", vec![1; 2 * N])] {
        let query = format!("dtype={}&shape=512,{}", body.0, N / 512);
        cases.push(case(Operation::Compare, &query, body.1, Format::Json));
    }
    cases
}

fn texts() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in ["F32", "F64", "I8"] {
        let data = vec!["1"; 2 * N].join(",");
        let body = format!("{{\"data\":[{data}],\"dtype\":\"{dtype}\"}}");
        cases.push(json(Operation::Quantize, body, Format::Json));
        let data: Vec<String> = vec!["[1]".to_owned(); N];
        let body = format!("{{\"data\":[{}],\"dtype\":\"{dtype}\"}}", data.join(","));
        cases.push(json(Operation::Quantize, body, Format::Json));
    }
    let list = vec!["1"; N].join(",");
    let body = format!(
        "{{\"data\":[{list}],\"scheme\":{{\"range\":\"explicit\",\"min\":[-{list}],\"max\":[{list}],\"granularity\":\"channel\",\"axis\":0}}}}"
    );
    cases.push(json(Operation::Quantize, body, Format::Json));
    let members: Vec<String> = (0..N / 8).map(|i| format!("\"{i}\":1")).collect();
    let body = format!("{{\"data\":[1],\"scheme\":{{{}}}}}", members.join(","));
    cases.push(json(Operation::Quantize, body, Format::Json));
    let named: Vec<String> = (0..4096).map(|i| format!("\"{i}\":{{\"data\":[1,2]}}")).collect();
    for output in [Format::Json, Format::Safetensors] {
        let body = format!("{{\"tensors\":{{{}}}}}", named.join(","));
        cases.push(json(Operation::Quantize, body, output));
    }
    cases
}

/// A safetensors file of tensors of zeros, with that metadata.
fn file(tensors: &[(String, &str, &[usize], usize)], metadata: &str) -> Vec<u8> {
    let (mut header, mut offset) = (format!("{{\"__metadata__\":{metadata}"), 0);
    for (name, dtype, shape, bytes) in tensors {
        let end = offset + bytes;
        header += &format!(
            ",\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{offset},{end}]}}"
        );
        offset = end;
    }
    header.push('}');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    // Numbers whose text is long, whatever they are read as.
    file.resize(file.len() + offset, 0x3f);
    file
}

/// Files of more than weights, whole and as they were answered.
fn checkpoints() -> Vec<Case> {
    let named = |name: &str, dtype, shape, bytes| (name.to_owned(), dtype, shape, bytes);
    // What stands behind the mask is not aligned.
    let passed = [
        named("mask", "BOOL", &[3][..], 3),
        named("ids", "I64", &[N], 8 * N),
        named("bias", "F64", &[N], 8 * N),
        named("norm", "BF16", &[N], 2 * N),
    ];
    let weight = named("w", "F32", &[8, N / 8], 4 * N);
    let codes = [
        named("w.codes", "I8", &[8, N / 8], N),
        named("w.scale", "F32", &[], 4),
        named("w.zero_point", "I8", &[], 1),
    ];
    // As long as names may be, with as many escapes.
    let quoted = |i: usize| format!("{}{i:04}", "\\\"".repeat(495));
    let many: Vec<_> = (0..4000).map(|i| (quoted(i), "I8", &[1][..], 1)).collect();
    let names = r#"{"passed":"[\"mask\",\"ids\",\"bias\",\"norm\"]"}"#;
    let of_file = |operation, query: &str, body, output| Case {
        input: Format::Safetensors,
        ..case(operation, query, body, output)
    };
    let classes = format!("include=re:.*{}&include=w", "\\w".repeat(250)).replace('\\', "%5C");
    let mut cases = Vec::new();
    for output in [Format::Safetensors, Format::Json] {
        let skip = usize::from(output == Format::Json);
        let whole = [&passed[skip..], std::slice::from_ref(&weight)].concat();
        cases.push(of_file(Operation::Quantize, "", file(&whole, "{}"), output));
        let several = [&passed[..], std::slice::from_ref(&weight)].concat();
        let query = "exclude=mask&include=*";
        if output == Format::Safetensors {
            cases.push(of_file(Operation::Quantize, query, file(&several, "{}"), output));
        }
        let names = if skip == 0 { names.to_owned() } else { names.replace(r#"\"mask\","#, "") };
        let whole = [&passed[skip..], &codes[..]].concat();
        cases.push(of_file(Operation::Dequantize, "", file(&whole, &names), output));
        let whole = [&many[..], std::slice::from_ref(&weight)].concat();
        cases.push(of_file(Operation::Quantize, "", file(&whole, "{}"), output));
        cases.push(of_file(Operation::Quantize, "include=w", file(&whole, "{}"), output));
        let named =
            [std::slice::from_ref(&weight), &[("w".repeat(260), "I8", &[1][..], 1)]].concat();
        for query in [&*classes, "include=re:(a%7Cw)*[^.]{1,50}$&include=w"] {
            cases.push(of_file(Operation::Quantize, query, file(&named, "{}"), output));
        }
    }
    for operation in [Operation::Compare, Operation::Inspect] {
        let query = if operation == Operation::Inspect { "include=w" } else { "" };
        let whole = [&many[..], std::slice::from_ref(&weight)].concat();
        cases.push(of_file(operation, query, file(&whole, "{}"), Format::Json));
    }
    cases
}

#[test]
fn what_is_reserved_covers_what_is_taken() {
    let cases =
        [quantizations(), dequantizations(), products(), looks(), texts(), checkpoints()].concat();
    assert!(cases.len() > 100);
    let mut short = Vec::new();
    for coding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
        for case in &cases {
            if coding != Encoding::Identity && case.output != Format::Json {
                continue;
            }
            let case = Case {
                encoding: coding,
                body: case.body.clone(),
                query: case.query.clone(),
                ..*case
            };
            let start = String::from_utf8_lossy(&case.body[..case.body.len().min(40)]);
            let what = format!(
                "{} {:?} {} {:?} {:?} {}",
                case.operation.name(),
                case.input,
                &case.query[..case.query.len().min(80)],
                case.output,
                coding,
                if case.input == Format::Json { start } else { "".into() }
            );
            let (reserved, most, error) = measure(&case);
            let error = error.map(|error| error.chars().take(100).collect::<String>());
            // What is refused on purpose are options that nothing has, and more of them than there are.
            let on_purpose = ["unknown option", "more than 64 member", "not a regular expression"];
            let refused = error
                .as_deref()
                .is_some_and(|error| !on_purpose.iter().any(|text| error.contains(text)));
            if most > reserved + SLACK || refused {
                short.push(format!(
                    "{:>5}% {most:>9} of {reserved:>9}: {what} {error:?}",
                    most * 100 / reserved
                ));
            }
        }
    }
    assert!(short.is_empty(), "{} of {}:\n{}", short.len(), cases.len(), short.join("\n"));
}
