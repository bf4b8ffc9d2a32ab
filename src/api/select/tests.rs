use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::api::effort::Effort;
use crate::api::fields::Origin;
use quantd_codec::Limits;
use quantd_codec::safetensors::Opaque;
use quantd_core::Task;
use quantd_core::tensor::{Buffer, DType, Shape};

fn tensor(dtype: DType, dims: &[usize]) -> AnyTensor {
    let shape = Shape::new(dims.to_vec()).unwrap();
    let bytes = Arc::new(Buffer::zeroed(shape.len() * dtype.size()));
    AnyTensor::Known(Tensor::view(dtype, shape, bytes, 0).unwrap())
}

fn opaque(dims: &[usize]) -> AnyTensor {
    let described = ("BOOL".to_owned(), Shape::new(dims.to_vec()).unwrap());
    AnyTensor::Opaque(Opaque::view(described, Arc::new(Buffer::zeroed(4)), 0, 4).unwrap())
}

fn named(tensors: &[(&str, AnyTensor)]) -> Vec<(String, AnyTensor)> {
    tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect()
}

fn checkpoint() -> Vec<(String, AnyTensor)> {
    named(&[
        ("ids", tensor(DType::I64, &[1, 4])),
        ("embed.weight", tensor(DType::BF16, &[4, 2])),
        ("fc.weight", tensor(DType::F32, &[2, 2])),
        ("fc.bias", tensor(DType::F32, &[2])),
        ("norm.weight", tensor(DType::F16, &[2])),
        ("mask", opaque(&[2, 2])),
        ("step", tensor(DType::F64, &[])),
    ])
}

/// Names that are chosen, or the sentence of the refusal and its cure.
fn chosen(
    options: &Value,
    tensors: Vec<(String, AnyTensor)>,
    rule: Rule,
) -> Result<Vec<String>, (String, String)> {
    let (limits, task) = (Limits::default(), Task::new(quantd_kernels::Isa::best()));
    let mut grow = |_| Ok(());
    let effort = Effort::UNBOUNDED;
    let mut context = Context { limits: &limits, task: &task, spare: 0, grow: &mut grow, effort };
    let options = options.as_object().unwrap().clone();
    let mut fields = Fields::new(options, Origin::Body(String::new()));
    let all = tensors.len();
    let split = Selection::take(&mut fields)
        .and_then(|selection| selection.split(tensors, rule, &mut context));
    let Selected { chosen, passed } = split.map_err(|error| (error.sentence(), error.cure))?;
    assert_eq!(chosen.len() + passed.len(), all);
    Ok(chosen.into_iter().map(|(name, _)| name).collect())
}

#[test]
fn weights_are_floats_of_two_dimensions_or_more() {
    let by_rule = |tensors, rule| chosen(&json!({}), tensors, rule).unwrap();
    assert_eq!(by_rule(checkpoint(), Rule::Weights), ["embed.weight", "fc.weight"]);
    let all = by_rule(checkpoint(), Rule::All);
    assert_eq!(all, ["ids", "embed.weight", "fc.weight", "fc.bias", "norm.weight", "step"]);
    // Without weights all are meant that can be computed with.
    let vectors = [("b", tensor(DType::F32, &[2])), ("i", tensor(DType::I8, &[2, 2]))];
    assert_eq!(by_rule(named(&vectors), Rule::Weights), ["b", "i"]);
    let masked = [("m", opaque(&[2])), ("b", tensor(DType::F32, &[2]))];
    assert_eq!(by_rule(named(&masked), Rule::Weights), ["b"]);
    assert_eq!(by_rule(Vec::new(), Rule::Weights), [""; 0]);
    let (detail, cure) =
        chosen(&json!({}), named(&[("m", opaque(&[2]))]), Rule::Weights).unwrap_err();
    assert_eq!(detail, "tensor \"m\": the dtype of the tensor is not read here");
    assert!(cure.starts_with("convert it to one of F64"), "{cure}");
}

#[test]
fn include_says_exactly_what_is_meant_and_exclude_takes_away() {
    for (options, expect) in [
        (json!({"include": "fc.bias"}), &["fc.bias"][..]),
        (json!({"include": ["fc.*", "ids"]}), &["ids", "fc.weight", "fc.bias"]),
        (json!({"include": "*.weight", "exclude": "norm*"}), &["embed.weight", "fc.weight"]),
        (json!({"exclude": "embed?weight"}), &["fc.weight"]),
        // What passes anyway may be excluded too.
        (json!({"exclude": ["*.bias", "mask"]}), &["embed.weight", "fc.weight"]),
        (
            json!({"include": "re:.*\\.(weight|bias)$", "exclude": "re:fc"}),
            &["embed.weight", "norm.weight"],
        ),
        (json!({"include": "*", "exclude": ["mask", "step", "ids", "*.weight"]}), &["fc.bias"]),
        (json!({"include": null, "exclude": []}), &["embed.weight", "fc.weight"]),
    ] {
        assert_eq!(chosen(&options, checkpoint(), Rule::Weights).unwrap(), expect, "{options}");
    }
}

#[test]
fn what_leaves_nothing_or_is_not_computed_with_is_refused() {
    let refused = |options| chosen(&options, checkpoint(), Rule::Weights).unwrap_err();
    assert_eq!(refused(json!({"exclude": "*"})).0, "exclude: no tensor is left");
    assert_eq!(refused(json!({"include": []})).0, "include: no tensor is left");
    assert_eq!(
        refused(json!({"include": "mask"})).0,
        "tensor \"mask\": the dtype of the tensor is not read here"
    );
    assert_eq!(refused(json!({"include": ["fc.*", 7]})).0, "include[1] is not a text");
    let alone = || named(&[("", tensor(DType::F32, &[2, 2]))]);
    let (detail, _) = chosen(&json!({"exclude": "x"}), alone(), Rule::All).unwrap_err();
    assert_eq!(detail, "exclude does not apply to a tensor without a name");
    assert_eq!(chosen(&json!({}), alone(), Rule::All).unwrap(), [""]);
}
