//! A format that differs in kind from integers goes through everything: that is what another one takes.

use axum::body::Body;
use axum::http::Request;
use half::f16;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use quantd_core::format::{
    CODES, Coded, Format, PartShape, PartType, Parts, Plan, Quantized, Restoring,
};
use quantd_core::params::Profile;
use quantd_core::partition::Partition;
use quantd_core::report::{Report, Size};
use quantd_core::scheme::{Coding, Granularity, NanPolicy, Options, RangeMethod, Scheme};
use quantd_core::tensor::{DType, Reals, Shape, Tensor};
use quantd_core::{QuantError, Task, cost};
use quantd_kernels::real::Real;
use quantd_kernels::sums::ErrorSums;

/// Elements of a block.
const BLOCK: usize = 4;
/// Bytes of a block: a scale in F16, and a code a byte.
const BYTES: usize = 2 + BLOCK;

/// Blocks along the last axis, each of which is a scale and its codes: one part, of bytes.
#[derive(Debug)]
pub(super) struct Blocks;

pub(super) static BLOCKS: Blocks = Blocks;

impl Blocks {
    /// Dimensions of the bytes.
    fn dims(shape: &Shape) -> Result<Vec<usize>, QuantError> {
        match shape.dims().split_last() {
            Some((last, rows)) if last.is_multiple_of(BLOCK) => {
                Ok(rows.iter().copied().chain([last / BLOCK * BYTES]).collect())
            }
            _ => Err(QuantError::field("shape", "the last axis is no multiple of 4")),
        }
    }

    fn encode(x: &[f32]) -> Vec<u8> {
        x.chunks_exact(BLOCK)
            .flat_map(|x| {
                let abs_max = x.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                let scale = f16::from_f32(abs_max / 127.0);
                let step = scale.to_f32().max(f32::MIN_POSITIVE);
                #[expect(clippy::cast_possible_truncation, reason = "at most 127")]
                let code = move |x: &f32| ((x / step).round_ties_even() as i8).to_ne_bytes()[0];
                scale.to_le_bytes().into_iter().chain(x.iter().map(code)).collect::<Vec<_>>()
            })
            .collect()
    }

    fn decode(bytes: &[u8]) -> Vec<f32> {
        bytes
            .chunks_exact(BYTES)
            .flat_map(|block| {
                let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                block[2..].iter().map(move |&code| f32::from(code.cast_signed()) * scale)
            })
            .collect()
    }
}

fn f32s(tensor: &Tensor) -> Vec<f32> {
    match tensor.reals() {
        Reals::F32(x) => x.into_owned(),
        Reals::F64(x) => x.iter().map(|&x| Real::from_f64(x)).collect(),
    }
}

impl Format for Blocks {
    fn name(&self) -> &'static str {
        "blocks"
    }

    fn summary(&self) -> &'static str {
        "a scale and four codes side by side"
    }

    fn resolve(&'static self, options: &Options) -> Result<Scheme, QuantError> {
        if options.bits.is_some_and(|bits| bits != 8) {
            return Err(QuantError::field("bits", "blocks have codes of 8 bits"));
        }
        Ok(Scheme {
            format: self,
            coding: Coding::Float { profile: Profile::Onnx, saturate: true },
            granularity: Granularity::Group { axis: -1, size: BLOCK },
            range: RangeMethod::MinMax,
            nan: NanPolicy::Refuse,
            packed: false,
        })
    }

    fn plan(&self, scheme: &Scheme, shape: &Shape, _: DType) -> Result<Plan, QuantError> {
        let slices = shape.len() / BLOCK;
        Ok(Plan {
            parts: vec![PartShape { name: CODES, dtype: DType::U8, dims: Self::dims(shape)? }],
            slices,
            working_bytes: 12 * shape.len(),
            cost: cost::quantize([shape.len(), slices], scheme),
        })
    }

    fn types(&self, _: &Options) -> Vec<PartType> {
        let (name, dtype) = (CODES, DType::U8);
        vec![PartType { name, dtype, types: &[DType::U8], required: true, elementwise: false }]
    }

    fn quantize(
        &self,
        tensor: &Tensor,
        scheme: &Scheme,
        per_slice: bool,
        _: &Task,
    ) -> Result<Quantized, QuantError> {
        let dims = Self::dims(tensor.shape())?;
        let x = f32s(tensor);
        let bytes = Self::encode(&x);
        let restored = Self::decode(&bytes);
        let bits = |elements: usize| (elements / BLOCK * BYTES * 8) as f64;
        let source_bits = 8 * tensor.dtype().size();
        let report = |x: &[f32], restored: &[f32]| {
            let size = Size { elements: x.len(), bits: bits(x.len()), source_bits };
            Report::new(&ErrorSums::of(x, restored), 0, 0, size)
        };
        let slices = Partition::new(scheme.granularity, tensor.shape())?.slices();
        let slices = if per_slice { slices } else { 0 };
        let at = |i: usize| i * BLOCK..(i + 1) * BLOCK;
        let codes = Shape::new(dims).ok();
        let codes = codes.and_then(|shape| Tensor::from_elements(DType::U8, shape, &bytes));
        Ok(Quantized {
            parts: Parts::from_iter(codes.map(|codes| (CODES, codes))),
            report: report(&x, &restored),
            slices: (0..slices).map(|i| report(&x[at(i)], &restored[at(i)])).collect(),
        })
    }

    fn restoring(&self, coded: &Coded, dtype: Option<DType>) -> Result<Restoring, QuantError> {
        let elements = coded.part(CODES)?.shape().len() / BYTES * BLOCK;
        let (dtype, cost) = (dtype.unwrap_or(DType::F32), cost::dequantize(elements, 0));
        Ok(Restoring { elements, dtype, working_bytes: 4 * elements, cost })
    }

    fn dequantize(&self, coded: &Coded, _: DType, _: &Task) -> Result<Tensor, QuantError> {
        let codes = coded.part(CODES)?;
        let x = Self::decode(codes.bytes());
        let mut dims = codes.shape().dims().to_vec();
        dims.last_mut().into_iter().for_each(|last| *last = *last / BYTES * BLOCK);
        let shape = coded.shape.clone().or_else(|| Shape::new(dims).ok());
        shape
            .and_then(|shape| Tensor::from_elements(DType::F32, shape, &x))
            .ok_or_else(|| QuantError::field(CODES, "no blocks"))
    }
}

/// What the service answers.
async fn post(path: &str, kind: &str, accept: &str, body: impl Into<Body>) -> (u16, Vec<u8>) {
    let quantd = crate::Quantd::new(&crate::config::Serve::for_tests()).unwrap();
    let request = Request::post(path).header("content-type", kind).header("accept", accept);
    let response = quantd.router().oneshot(request.body(body.into()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

const JSON: &str = "application/json";
const SAFETENSORS: &str = "application/x-safetensors";

async fn json(path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = post(path, JSON, JSON, body.to_string()).await;
    (status, serde_json::from_slice(&text).unwrap())
}

fn x() -> Value {
    json!([[1.0, -2.0, 127.0, 0.0, 0.5, 0.25, -63.5, 1.0]])
}

#[tokio::test]
async fn another_format_is_quantized_and_restored_in_json() {
    let (status, made) = json("/v1/quantize", &json!({"data": x(), "scheme": "blocks"})).await;
    assert_eq!(status, 200, "{made}");
    let one = f16::ONE.to_le_bytes();
    let half = f16::from_f32(0.5).to_le_bytes();
    let codes = json!([[one[0], one[1], 1, 254, 127, 0, half[0], half[1], 1, 0, 129, 2]]);
    assert_eq!(made["codes"], codes);
    assert_eq!((&made["dtype"], &made["shape"]), (&json!("U8"), &json!([1, 8])));
    assert_eq!(made["scheme"]["format"], "blocks");
    assert_eq!(made["report"]["bits_per_element"], 12.0);
    assert!(made.get("scale").is_none() && made.get("scale_dtype").is_none());
    let (status, restored) = json("/v1/dequantize", &made).await;
    assert_eq!(status, 200, "{restored}");
    let expect = json!([[1.0, -2.0, 127.0, 0.0, 0.5, 0.0, -63.5, 1.0]]);
    assert_eq!((&restored["data"], &restored["dtype"]), (&expect, &json!("F32")));
    // By its field as by its name, slice by slice, among others.
    let body = json!({
        "tensors": {"w": {"data": x()}}, "scheme": {"format": "blocks"}, "per_slice": true
    });
    let (_, several) = json("/v1/quantize", &body).await;
    assert_eq!(several["tensors"]["w"]["codes"], codes);
    assert_eq!(several["tensors"]["w"]["report"]["slices"].as_array().map(Vec::len), Some(2));
    let (_, restored) = json("/v1/dequantize", &several).await;
    assert_eq!(restored["tensors"]["w"]["data"], expect);
}

#[tokio::test]
async fn another_format_goes_through_files_and_bare_bytes() {
    let body = json!({"tensors": {"w": {"data": x()}}, "scheme": "blocks"}).to_string();
    let (status, file) = post("/v1/quantize", JSON, SAFETENSORS, body).await;
    assert_eq!(status, 200);
    let (status, restored) = post("/v1/dequantize", SAFETENSORS, JSON, file).await;
    let restored: Value = serde_json::from_slice(&restored).unwrap();
    assert_eq!(status, 200, "{restored}");
    assert_eq!(restored["tensors"]["w"]["shape"], json!([1, 8]));
    let raw = "application/octet-stream";
    let body = json!({"data": x()}).to_string();
    let (status, codes) = post("/v1/quantize?scheme=blocks", JSON, raw, body).await;
    assert_eq!((status, codes.len()), (200, 12));
    let path = "/v1/dequantize?format=blocks&shape=2,4";
    let (status, restored) = post(path, raw, JSON, codes).await;
    let restored: Value = serde_json::from_slice(&restored).unwrap();
    assert_eq!((status, &restored["shape"]), (200, &json!([2, 4])), "{restored}");
}

#[tokio::test]
async fn another_format_is_compared_and_served_as_models() {
    let schemes = json!(["blocks", "int8", {"format": "blocks"}, "int4"]);
    let body = json!({"data": x(), "schemes": schemes, "sort": "bits"});
    let (status, table) = json("/v1/compare", &body).await;
    assert_eq!(status, 200, "{table}");
    let names: Vec<_> =
        table["results"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["int4", "blocks", "int8", "blocks"]);
    let input = json!({"name": "x", "shape": [1, 8], "datatype": "FP32", "data": x()});
    let (status, made) =
        json("/v2/models/quantize_blocks/infer", &json!({"inputs": [input]})).await;
    assert_eq!(status, 200, "{made}");
    let mut outputs = made["outputs"].as_array().unwrap().clone();
    let names: Vec<_> = outputs.iter().map(|output| output["name"].clone()).collect();
    assert_eq!(names, ["q", "metrics"]);
    let inputs = json!({"inputs": [outputs.swap_remove(0)]});
    let (status, restored) = json("/v2/models/dequantize_blocks/infer", &inputs).await;
    assert_eq!(status, 200, "{restored}");
    assert_eq!(restored["outputs"][0]["shape"], json!([1, 8]));
}

#[tokio::test]
async fn what_does_not_fit_another_format_is_refused_where_it_stands() {
    let refused = async |path: &str, body: Value, at: &str, detail: &str| {
        let (status, problem) = json(path, &body).await;
        assert_eq!(status, 400, "{problem}");
        let detail_of = problem["detail"].as_str().unwrap();
        assert!(detail_of.contains(detail), "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], at, "{problem}");
    };
    let bits = json!({"data": x(), "scheme": {"format": "blocks", "bits": 4}});
    refused("/v1/quantize", bits, "/scheme/bits", "codes of 8 bits").await;
    let shape = json!({"data": [1, 2, 3], "scheme": "blocks"});
    refused("/v1/quantize", shape, "/data", "no multiple of 4").await;
    let word = json!({"data": x(), "scheme": {"format": "block"}});
    refused("/v1/quantize", word, "/scheme/format", "not one of the allowed values").await;
    let product = json!({"a": {"data": x(), "scheme": "blocks"}, "b": {"data": vec![[1.0]; 8]}});
    refused("/v1/matmul", product, "/a/scheme/format", "of integers, not of blocks").await;
    let codes = json!({
        "a": {"codes": [[0, 60, 1, 2, 3, 4]], "scheme": "blocks"}, "b": {"data": [[1.0]]}
    });
    refused("/v1/matmul", codes, "/a/scheme", "of integers, not of blocks").await;
    let layer = json!({"name": "l", "weight": {"data": x(), "scheme": "blocks"}});
    refused("/v1/layers", layer, "/weight/scheme/format", "of integers, not of blocks").await;
    let calibrator = json!({"name": "c", "scheme": "blocks"});
    refused("/v1/calibrators", calibrator, "/scheme/format", "for integers, not for blocks").await;
}
