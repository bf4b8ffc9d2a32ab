use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::json::Text;
use crate::{CodecError, Limits};
use quantd_core::tensor::{Buffer, Shape};

fn parse(header: &str, tail: &[u8], length: Option<usize>) -> Result<Request, CodecError> {
    let body = [header.as_bytes(), tail].concat();
    read(&Arc::new(Buffer::copy_of(&body)), 0, length, (&Limits::default(), &mut |_| Ok(())))
}

const X: &str =
    r#"{"name":"x","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}}"#;

#[test]
fn inputs_take_the_bytes_in_their_order() {
    let header = format!(
        r#"{{"id":"a","inputs":[{X},{{"name":"y","shape":[1,2],"datatype":"UINT8","data":[[7,8]]}},{}]}}"#,
        X.replace("\"x\"", "\"z\"")
    );
    let tail = [1, 0, 2, 0, 3, 0, 255, 255];
    let request = parse(&header, &tail, Some(header.len())).unwrap();
    assert_eq!(request.id.as_deref(), Some("a"));
    let found: Vec<_> = request
        .inputs
        .iter()
        .map(|input| (input.name.as_str(), input.is_view, input.tensor.bytes().to_vec()))
        .collect();
    let expect = [
        ("x", true, vec![1, 0, 2, 0]),
        ("y", false, vec![7, 8]),
        ("z", true, vec![3, 0, 255, 255]),
    ];
    assert_eq!(found, expect);
}

#[test]
fn lies_are_named() {
    let with = |parameters: &str| {
        format!(
            r#"{{"inputs":[{{"name":"x","shape":[2],"datatype":"FP32","parameters":{parameters}}}]}}"#
        )
    };
    let of_x = format!(r#"{{"inputs":[{X}]}}"#);
    for (header, tail, length, at, detail) in [
        (of_x.clone(), 4, Some(1000), None, "the JSON is said to have 1000 bytes, the body has"),
        (of_x.clone(), 3, None, None, "the document is followed by other bytes"),
        (
            of_x.clone(),
            3,
            Some(of_x.len()),
            Some("/inputs/0/parameters/binary_data_size"),
            "input \"x\": binary_data_size is 4, the body has 3 bytes left",
        ),
        (
            of_x.clone(),
            5,
            Some(of_x.len()),
            None,
            "unexpected additional input data: 1 bytes of the body belong to no input",
        ),
        (
            with(r#"{"binary_data_size":9}"#),
            9,
            None,
            Some("/inputs/0/parameters/binary_data_size"),
            "input \"x\": binary_data_size is 9, shape [2] of FP32 takes 8 bytes",
        ),
        (
            with(r#"{"binary_data_size":18446744073709551615}"#),
            9,
            None,
            Some("/inputs/0/parameters/binary_data_size"),
            "input \"x\": binary_data_size is 18446744073709551615",
        ),
        (
            with("[]"),
            0,
            None,
            Some("/inputs/0/parameters"),
            "input \"x\": parameters are not an object",
        ),
        (
            with(r#"{"a":[1]}"#),
            0,
            None,
            Some("/inputs/0/parameters/a"),
            "input \"x\": a parameter is a string, a number or a boolean",
        ),
    ] {
        let length = length.or((tail != 3).then_some(header.len()));
        let error = parse(&header, &vec![b'#'; tail], length).unwrap_err();
        assert!(error.detail.starts_with(detail), "{header}: {}", error.detail);
        if let Some(at) = at {
            assert_eq!(error.at.as_deref(), Some(at), "{header}");
        }
    }
}

#[test]
fn a_raw_body_fills_the_free_dimension() {
    let body = Arc::new(Buffer::copy_of(&[0; 24]));
    let raw = |dims: &[i64]| {
        raw(&body, 0, DType::F32, dims, &Limits::default()).map(|x| x.shape().dims().to_vec())
    };
    assert_eq!(raw(&[-1]), Ok(vec![6]));
    assert_eq!(raw(&[-1, 3]), Ok(vec![2, 3]));
    assert_eq!(raw(&[2, 3]), Ok(vec![2, 3]));
    for dims in [&[-1, -1][..], &[-1, 4], &[3], &[-1, 0], &[-1, i64::MAX], &[]] {
        assert!(raw(dims).is_err(), "{dims:?}");
    }
}

#[test]
fn answers_are_written_as_clients_read_them() {
    let tensor = |dims: &[usize], x: &[f32]| {
        Tensor::from_elements(DType::F32, Shape::new(dims.to_vec()).unwrap(), x).unwrap()
    };
    let output = |tensor, binary| Output {
        name: "y",
        tensor,
        parameters: vec![("names", "a,\"b\"".to_owned())],
        binary,
    };
    let head = Head { model: "m", version: "1", id: Some("\u{7}") };
    let write = |x: &[f32], binary| {
        let mut room = |_| Ok(());
        let mut text = Text::new(&mut room);
        write(&mut text, head, &[output(tensor(&[1, x.len()], x), binary)])?;
        let header = text.finish().concat();
        Ok::<_, CodecError>(serde_json::from_slice::<Value>(&header).unwrap())
    };
    let names = "a,\"b\"";
    assert_eq!(
        write(&[1.5, f32::NAN, -0.0], false).unwrap(),
        json!({"model_name": "m", "model_version": "1", "id": "\u{7}", "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 3], "parameters": {"names": names},
             "data": [1.5, null, -0.0]}]})
    );
    assert_eq!(
        write(&[f32::INFINITY], true).unwrap()["outputs"][0],
        json!({"name": "y", "datatype": "FP32", "shape": [1, 1],
               "parameters": {"binary_data_size": 4, "names": names}})
    );
    let error = write(&[1.0, f32::NEG_INFINITY], false).unwrap_err();
    assert_eq!(error.detail, "output \"y\": infinities cannot be written as JSON");
}

proptest! {
    /// Whatever the header says, reading ends without a panic, and views stay inside the body.
    #[test]
    fn no_body_breaks_the_reader(
        cut in 0_usize..200,
        length in prop::option::of(any::<usize>()),
        size in any::<u64>(),
        dims in prop::collection::vec(any::<u64>(), 0..10),
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let header = json!({"inputs": [
            {"name": "x", "shape": dims, "datatype": "UINT8", "parameters": {"binary_data_size": size}}
        ]}).to_string();
        let whole = parse(&header, &tail, Some(header.len()));
        if let Ok(request) = whole {
            prop_assert_eq!(request.inputs[0].tensor.bytes(), &tail[..]);
        }
        let text = header.get(..header.len().saturating_sub(cut)).unwrap();
        drop(parse(text, &tail, length));
        drop(parse(text, &tail, Some(length.unwrap_or(0) % (header.len() + 40))));
    }
}
