use std::fmt::Write as _;

use half::f16;
use proptest::prelude::*;

use super::*;
use crate::codec::{Limits, Reason};
use crate::tensor::{DType, Shape, Tensor};

fn read(text: &str, dtype: DType) -> Result<Tensor, crate::codec::CodecError> {
    read_tensor(text.as_bytes(), dtype, None, "/data", &Limits::default())
}

fn written(tensor: &Tensor) -> String {
    let mut out = Vec::new();
    write_tensor(&mut out, tensor);
    String::from_utf8(out).unwrap()
}

#[test]
fn nesting_gives_the_shape() {
    let check = |text: &str, dims: &[usize], numbers: &[f32]| {
        let tensor = read(text, DType::F32).unwrap();
        assert_eq!(tensor.shape().dims(), dims, "{text}");
        assert_eq!(&*tensor.elements::<f32>(), numbers, "{text}");
    };
    check("1.5", &[], &[1.5]);
    check("[]", &[0], &[]);
    check("[[], [ ]]", &[2, 0], &[]);
    check("[[[]]]", &[1, 1, 0], &[]);
    check(" [ 1 , 2.5e0,\n-3 ] ", &[3], &[1.0, 2.5, -3.0]);
    check("[[1,2],[3,4],[5,6]]", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    check("[[[[[[[[7]]]]]]]]", &[1; 8], &[7.0]);
}

#[test]
fn rows_of_different_kinds_are_named() {
    let check = |text: &str, expect: &str| {
        assert_eq!(read(text, DType::F32).unwrap_err().to_string(), expect, "{text}");
    };
    check("[[1,2],[3]]", "/data/1: 1 items, but 2 in the arrays before");
    check("[1,[2]]", "/data/1: an array beside numbers");
    check("[[1],2]", "/data/1: a number beside arrays");
    check("[[],[1]]", "/data/1: 1 items, but 0 in the arrays before");
    check("[[],1]", "/data/1: a number beside arrays");
    check("[[],[[]]]", "/data/1: 1 items, but 0 in the arrays before");
    check("[[[[[[[[[7]]]]]]]]]", "/data/0/0/0/0/0/0/0/0: nested more than 8 deep");
    check("[1,2", "/data/2: the array does not end");
    check("[1,]", "/data/1: not a number");
    check("[1 2]", "/data/1: expected a comma or the end of the array");
    check("[1]]", "/data: text after the end of the array");
    check("[01]", "/data/0: not a number");
    check("[1.]", "/data/0: not a number");
    check("[1x]", "/data/0: not a number");
    check("[+1]", "/data/0: not a number");
    check("[0, 1e400]", "/data/1: above the largest number of its type");
    check("[NaN]", "/data/0: not a number");
    check("[null]", "/data/0: not a number");
    check("[\"1\"]", "/data/0: a string");
    check("[{}]", "/data/0: an object");
    check("[tru]", "/data/0: not a number");
    let cure = read("[[0, NaN]]", DType::F32).unwrap_err().cure;
    assert!(cure.contains("\"NaN\""), "{cure}");
    let integer = |text: &str, dtype| read(text, dtype).unwrap_err().to_string();
    assert_eq!(integer("[1.0]", DType::I32), "/data/0: not an integer");
    assert_eq!(integer("[0, 256]", DType::U8), "/data/1: outside of its integer type");
    assert_eq!(integer("[\"NaN\"]", DType::I8), "/data/0: an integer type has no such value");
}

#[test]
fn deep_and_wide_texts_do_not_recurse() {
    let deep = "[".repeat(200_000);
    assert!(read(&deep, DType::F32).unwrap_err().detail.starts_with("nested more than 8"));
    assert!(
        read_value(deep.as_bytes(), "/scheme")
            .unwrap_err()
            .detail
            .starts_with("nested more than 16")
    );
    assert!(members(format!("{{\"a\":{deep}").as_bytes()).is_err());
    let mut wide = String::from("{");
    for i in 0..1_000_000 {
        write!(wide, "\"k{i}\":0,").unwrap();
    }
    let error = members(wide.as_bytes()).unwrap_err();
    assert_eq!((error.reason, &*error.detail), (Reason::TooLarge, "more than 64 members"));
}

#[test]
fn a_given_shape_is_held_against_the_data() {
    let shape = Shape::new(vec![2, 2]).unwrap();
    let read = |text: &str| {
        read_tensor(text.as_bytes(), DType::U8, Some(&shape), "/data", &Limits::default())
    };
    assert_eq!(read("[1,2,3,4]").unwrap().shape(), &shape);
    assert_eq!(read("[[1,2],[3,4]]").unwrap().bytes(), [1, 2, 3, 4]);
    assert_eq!(
        read("[[1],[2],[3],[4]]").unwrap_err().to_string(),
        "/data: the data has shape [4, 1], not [2, 2]"
    );
    assert_eq!(
        read("[1,2,3]").unwrap_err().to_string(),
        "/data: the data has shape [3], not [2, 2]"
    );
    let few = Limits { max_elements: 3, ..Limits::default() };
    let error = read_tensor(b"[1,2,3,4]", DType::U8, None, "/data", &few).unwrap_err();
    assert_eq!((error.reason, &*error.detail), (Reason::TooLarge, "more than 3 elements"));
}

#[test]
fn special_numbers_are_strings_both_ways() {
    let text = "[\"NaN\",\"Infinity\",\"-Infinity\",1.0,-0.0,1e-7]";
    for dtype in [DType::F64, DType::F32] {
        assert_eq!(written(&read(text, dtype).unwrap()), text);
    }
    let half = read("[0.1, \"NaN\"]", DType::F16).unwrap();
    assert_eq!(half.elements::<f16>()[0], f16::from_f32(0.1));
    assert_eq!(written(&half), "[0.099975586,\"NaN\"]");
}

#[test]
fn every_byte_has_its_text() {
    let bytes: Vec<u8> = (0..=255).cycle().take(1300).collect();
    let shape = Shape::new(vec![2, 650]).unwrap();
    let unsigned = Tensor::from_elements(DType::U8, shape.clone(), &bytes).unwrap();
    assert_eq!(written(&unsigned), serde_json::to_string(&[&bytes[..650], &bytes[650..]]).unwrap());
    let signed: Vec<i8> = bytes.iter().map(|&byte| byte.cast_signed()).collect();
    let tensor = Tensor::from_elements(DType::I8, shape, &signed).unwrap();
    assert_eq!(written(&tensor), serde_json::to_string(&[&signed[..650], &signed[650..]]).unwrap());
    let scalar = Tensor::from_elements(DType::I8, Shape::scalar(), &[-128_i8]).unwrap();
    assert_eq!(written(&scalar), "-128");
    let empty =
        Tensor::from_elements::<i8>(DType::I8, Shape::new(vec![2, 0]).unwrap(), &[]).unwrap();
    assert_eq!(written(&empty), "[[],[]]");
    let none =
        Tensor::from_elements::<i8>(DType::I8, Shape::new(vec![0, 2]).unwrap(), &[]).unwrap();
    assert_eq!(written(&none), "[]");
}

#[test]
fn objects_are_split_strictly() {
    let text =
        b" {\"a\": [1, [\"]\", 2]], \"b\\u0063\" :{\"x\":\"}\"},\"c\":\"\\\"\" , \"d\":1.5} ";
    let found: Vec<_> = members(text)
        .unwrap()
        .into_iter()
        .map(|m| (m.key.into_owned(), std::str::from_utf8(m.value).unwrap()))
        .collect();
    let expect =
        [("a", "[1, [\"]\", 2]]"), ("bc", "{\"x\":\"}\"}"), ("c", "\"\\\"\""), ("d", "1.5")];
    assert_eq!(found, expect.map(|(key, value)| (key.to_owned(), value)));
    assert_eq!(members(b"{}").unwrap(), []);
    let check =
        |text: &[u8], expect: &str| assert_eq!(members(text).unwrap_err().to_string(), expect);
    check(b"", "byte 0: expected an object");
    check(b"[1]", "byte 0: expected an object");
    check(b"\xef\xbb\xbf{}", "byte 0: a byte order mark");
    check(b"{\"a\":1,\"\\u0061\":2}", "/a: given twice");
    check(b"{\"a\":1} x", "byte 8: text after the end of the object");
    check(b"{\"a\":1,}", "byte 7: expected the name of a member");
    check(b"{\"a\" 1}", "byte 5: expected a colon");
    check(b"{\"a\":}", "byte 5: expected a value");
    check(b"{\"a\":[1}", "byte 5: the value does not end");
    check(b"{\"a\":1 2}", "byte 7: expected a comma or the end of the object");
    check(b"{a:1}", "byte 1: expected the name of a member");
    check(b"{\"\xff\":1}", "byte 1: the name of a member is not UTF-8");
    check(b"{\"a", "byte 1: a string without end");
    let long = format!("{{\"{}\":1}}", "k".repeat(5000));
    check(long.as_bytes(), "byte 1: the name of a member is too long");
}

#[test]
fn small_values_are_strict() {
    assert_eq!(
        read_value(b"{\"a\":[1,2.5,null,true,\"x\"]}", "/s").unwrap(),
        serde_json::json!({"a": [1, 2.5, null, true, "x"]})
    );
    let check = |text: &[u8], expect: &str| {
        assert_eq!(read_value(text, "/s").unwrap_err().to_string(), expect)
    };
    check(b"{\"a\":1,\"a\":2}", "/s: a name is given twice");
    check(b"[{\"a\":{\"b\":1,\"b\":1}}]", "/s: a name is given twice");
    check(b"{\"a\":secret}", "/s: not valid JSON");
    check(b"1e400", "/s: not valid JSON");
    check(format!("\"{}\"", "x".repeat(70_000)).as_bytes(), "/s: a string is too long");
    check(b"\"\xff\"", "/s: not valid JSON");
}

#[test]
fn base64_is_elements() {
    let shape = Shape::vector(2).unwrap();
    let read = |text: &str| {
        read_base64(text.as_bytes(), DType::F32, &shape, "/data_b64", &Limits::default())
    };
    // 1.0, -2.0
    assert_eq!(&*read("\"AACAPwAAAMA=\"").unwrap().elements::<f32>(), [1.0, -2.0]);
    assert_eq!(&*read("\"AACAPwAAAMA\"").unwrap().elements::<f32>(), [1.0, -2.0]);
    let text = |text: &str| read(text).unwrap_err().to_string();
    assert_eq!(text("\"AACAPw==\""), "/data_b64: [2] of F32 is 8 bytes, the text has 4");
    assert_eq!(text("\"!!!!\""), "/data_b64: not base64");
    assert_eq!(text("1"), "/data_b64: not a string");
}

proptest! {
    #[test]
    fn floats_come_back(bits: Vec<u32>) {
        let numbers: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|x| !x.is_nan()).collect();
        let tensor = Tensor::from_elements(DType::F32, Shape::vector(numbers.len()).unwrap(), &numbers).unwrap();
        let back = read(&written(&tensor), DType::F32).unwrap();
        prop_assert_eq!(back.bytes(), tensor.bytes());
    }

    #[test]
    fn no_text_panics(text in "[\\[\\],{}\":0-9.eE+NaI \\\\-]{0,40}") {
        let _ = read(&text, DType::F32);
        let _ = read(&text, DType::I8);
        let _ = members(text.as_bytes());
        let _ = read_value(text.as_bytes(), "");
    }
}
