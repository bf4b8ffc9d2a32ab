use proptest::prelude::*;

use super::*;
use crate::Reason;

fn read(text: &str, dtype: DType) -> Result<Tensor, CodecError> {
    read_tensor(text.as_bytes(), dtype, None, "/data", (&Limits::default(), &mut |_| Ok(())))
}

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims.to_vec()).unwrap()
}

fn written(tensor: &Tensor) -> String {
    let mut room = |_| Ok(());
    let mut out = Text::new(&mut room);
    write_tensor(&mut out, tensor).unwrap();
    String::from_utf8(out.finish().concat()).unwrap()
}

#[test]
fn objects_are_split() {
    let text = br#" { "a" : [1, "]", {"x": [2]}] , "\u0062\n":"\"}", "c":-1.5e3,"d":{"}":"{"}
        ,"":null } "#;
    let found = members(text).unwrap();
    let values: Vec<_> =
        found.iter().map(|m| (&*m.key, std::str::from_utf8(m.value).unwrap())).collect();
    let expect = [
        ("a", r#"[1, "]", {"x": [2]}]"#),
        ("b\n", r#""\"}""#),
        ("c", "-1.5e3"),
        ("d", r#"{"}":"{"}"#),
        ("", "null"),
    ];
    assert_eq!(values, expect);
    for member in &found {
        assert!(text[member.offset..].starts_with(member.value));
    }
    assert_eq!(members(b"{}").unwrap(), []);
}

#[test]
fn malformed_objects_are_refused() {
    let check = |text: &[u8], at: Option<&str>, detail: &str| {
        let error = members(text).unwrap_err();
        let text = String::from_utf8_lossy(text);
        assert_eq!((error.at.as_deref(), &*error.detail), (at, detail), "{text}");
    };
    check(b"", None, "the document is empty");
    check(b" \n", None, "the document is empty");
    check(b"\xef\xbb\xbf{}", Some("byte 0"), "the document starts with a byte order mark");
    check(b" [1]", Some("byte 1"), "a JSON object is expected here");
    check(b"{} {}", Some("byte 3"), "the document is followed by other bytes");
    check(b"{}\0", Some("byte 2"), "the document is followed by other bytes");
    let twice = "the name occurs twice in one object";
    check(br#"{"a":1,"a":2}"#, Some("/a"), twice);
    check(br#"{"a/~":1,"\u0061/~":2}"#, Some("/a~1~0"), twice);
    check(b"{\"\\u0007\":1,\"\\u0007\":2}", Some("/\u{fffd}"), twice);
    check(b"{a:1}", Some("byte 1"), "a member name in double quotes is expected here");
    check(br#"{"a":1,}"#, Some("byte 7"), "a member name in double quotes is expected here");
    check(br#"{"a" 1}"#, Some("byte 5"), "a colon is expected here");
    check(br#"{"a":}"#, Some("byte 5"), "a value is expected here");
    check(br#"{"a":1 "b":2}"#, Some("byte 7"), "a comma or a closing brace is expected here");
    check(br#"{"a":1]"#, Some("byte 6"), "a comma or a closing brace is expected here");
    for text in [
        &br#"{"a"#[..],
        br#"{"a""#,
        br#"{"a":"#,
        br#"{"a":1"#,
        br#"{"a":[1,"#,
        br#"{"a":"x\""#,
        b"{",
    ] {
        let error = members(text).unwrap_err();
        assert_eq!(error.detail, "the document ends too early");
        assert_eq!(error.cure, "send the whole document");
    }
    let names = "a member name is not valid JSON in UTF-8";
    check(b"{\"\xff\":1}", Some("byte 1"), names);
    check(b"{\"\\x\":1}", Some("byte 1"), names);
    check(b"{\"\0\":1}", Some("byte 1"), names);
    check(b"{\"\\ud800\":1}", Some("byte 1"), names);
    let long = format!("{{\"{}\":1}}", "k".repeat(513));
    check(long.as_bytes(), Some("byte 1"), "a member name is longer than 512 bytes");
    let many: Vec<_> = (0..65).map(|i| format!("\"{i}\":0")).collect();
    let error = members(format!("{{{}}}", many.join(",")).as_bytes()).unwrap_err();
    assert_eq!(
        (error.reason, &*error.detail),
        (Reason::TooLarge, "the object has more than 64 members")
    );
}

#[test]
fn hostile_documents_take_no_stack() {
    let deep = "[".repeat(200_000);
    assert!(members(format!("{{\"a\":{deep}").as_bytes()).is_err());
    assert!(members(format!("{{\"a\":{deep}{}}}", "]".repeat(200_000)).as_bytes()).is_ok());
    assert_eq!(read(&deep, DType::F32).unwrap_err().detail, "arrays are nested more than 8 deep");
    assert_eq!(
        read_value(deep.as_bytes(), "/o").unwrap_err().detail,
        "the document ends too early"
    );
    let braces = "{\"a\":".repeat(200_000);
    assert!(members(braces.as_bytes()).is_err());
    let many: String = (0..1_000_000).map(|i| format!("\"{i}\":0,")).collect();
    assert!(members(format!("{{{many}\"z\":0}}").as_bytes()).is_err());
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(100 << 20));
    let found = members(long.as_bytes()).unwrap();
    assert_eq!(read_value(found[0].value, "/a").unwrap_err().reason, Reason::TooLarge);
    let error =
        read_tensor(found[0].value, DType::F32, None, "/a", (&Limits::default(), &mut |_| Ok(())))
            .unwrap_err();
    assert_eq!(error.reason, Reason::Malformed);
}

#[test]
fn shapes_come_from_the_nesting() {
    let check = |text: &str, dims: &[usize]| {
        let tensor = read(text, DType::F32).unwrap();
        assert_eq!(tensor.shape().dims(), dims, "{text}");
        assert_eq!(tensor.elements::<f32>().len(), tensor.shape().len());
    };
    check("1", &[]);
    check(" -0.5 ", &[]);
    check("\"NaN\"", &[]);
    check("[]", &[0]);
    check("[ 1 , 2 ]", &[2]);
    check("[[],[]]", &[2, 0]);
    check("[[1],[2],[3]]", &[3, 1]);
    check("[ [ [1 ,2 ],\n[3,4]]\t]", &[1, 2, 2]);
    check("[[[[[[[[7]]]]]]]]", &[1; 8]);
    let halves = read("[\"NaN\", \"Infinity\", \"-Infinity\", 0.5]", DType::BF16).unwrap();
    let halves = halves.elements::<bf16>();
    assert!(halves[0].is_nan());
    assert_eq!(halves[1..], [bf16::INFINITY, bf16::NEG_INFINITY, bf16::from_f32(0.5)]);
}

#[test]
fn wanted_shapes_are_checked() {
    let with = |text: &str, dims: &[usize]| {
        read_tensor(
            text.as_bytes(),
            DType::I8,
            Some(&shape(dims)),
            "/data",
            (&Limits::default(), &mut |_| Ok(())),
        )
        .map(|tensor| (tensor.shape().dims().to_vec(), tensor.bytes().to_vec()))
    };
    for text in ["[1,2,3,4,5,6]", "[[1,2,3],[4,5,6]]"] {
        assert_eq!(with(text, &[2, 3]), Ok((vec![2, 3], vec![1, 2, 3, 4, 5, 6])));
    }
    assert_eq!(with("[]", &[3, 0]), Ok((vec![3, 0], vec![])));
    assert_eq!(with("[7]", &[]), Ok((vec![], vec![7])));
    let error = with("[[1,2],[3,4],[5,6]]", &[2, 3]).unwrap_err();
    assert_eq!(error.detail, "the nesting is not that of shape [2, 3]");
    assert_eq!(error.cure, "nest the data like the shape, or send one flat array");
    let error = with("[1,2]", &[3]).unwrap_err();
    assert_eq!(error.detail, "2 elements where shape [3] takes 3");
    assert_eq!(error.at.as_deref(), Some("/data"));
}

/// Asserts place, text and cure of a refused value.
fn check(dtype: DType, text: &str, at: &str, detail: &str, cure: &str) {
    let error = read(text, dtype).unwrap_err();
    let found = (error.at.as_deref(), &*error.detail, &*error.cure);
    assert_eq!(found, (Some(at), detail, cure), "{text}");
}

fn float(text: &str, at: &str, detail: &str, cure: &str) {
    check(DType::F32, text, at, detail, cure);
}

#[test]
fn malformed_numbers_are_located() {
    let tokens = "write the string \"NaN\", \"Infinity\" or \"-Infinity\", or send binary";
    float("[[1,2],[3,NaN]]", "/data/1/1", "NaN and Infinity are not JSON", tokens);
    float("[-Infinity]", "/data/0", "NaN and Infinity are not JSON", tokens);
    let null = "write the string \"NaN\" for a missing float, or send binary";
    float("[0,0,null]", "/data/2", "null is not a number", null);
    float("[true]", "/data/0", "a boolean is not a number", "write 1 or 0");
    float("[{}]", "/data/0", "an object is not a number", "");
    let strings = "the only strings read as floats are \"NaN\", \"Infinity\" and \"-Infinity\"";
    float("[\"1\"]", "/data/0", strings, "write numbers without quotes");
    float("[\"nan\"]", "/data/0", strings, "write numbers without quotes");
    float("[+1]", "/data/0", "a JSON number has no plus sign", "");
    float("[01]", "/data/0", "a JSON number has no leading zeros", "");
    float("[-01.5]", "/data/0", "a JSON number has no leading zeros", "");
    float("[.5]", "/data/0", "a digit must precede the decimal point", "write 0.5, not .5");
    float("[5.]", "/data/0", "a digit must follow the decimal point", "write 5.0 or 5, not 5.");
    float("[1e]", "/data/0", "a digit must follow the exponent sign", "");
    float("[0x1]", "/data/0", "a comma or a closing bracket is expected here", "");
    float("[1 2]", "/data/0", "a comma or a closing bracket is expected here", "");
    float("[-]", "/data/0", "a number is expected here", "");
    float("[\u{0}]", "/data/0", "a number is expected here", "");
    float("[1,]", "/data/1", "a value must follow the comma", "");
    float("[[1],]", "/data/1", "a value must follow the comma", "");
    float("[1", "/data/0", "the value ends inside an array or a number", "");
    float("", "/data", "the value ends inside an array or a number", "");
    float("[1]]", "/data", "the value is followed by other bytes", "");
    float("1,2", "/data", "the value is followed by other bytes", "");
}

#[test]
fn uneven_arrays_are_located() {
    let ragged = "the array is ragged: its length differs from its first sibling's";
    let equal = "make all rows of one level equally long";
    float("[[[1,2]],[[3,4,5]]]", "/data/1/0", ragged, equal);
    float("[[1,2],[3]]", "/data/1", ragged, equal);
    float("[[],[1]]", "/data/1", ragged, equal);
    let mixed = "numbers and arrays are mixed at one level";
    float("[1,[2]]", "/data/1", mixed, "nest every element equally deep");
    float("[[1],2]", "/data/1", mixed, "nest every element equally deep");
    float("[[[1]],[2]]", "/data/1/0", mixed, "nest every element equally deep");
    let deep = "arrays are nested more than 8 deep";
    float("[[[[[[[[[1]]]]]]]]]", "/data/0/0/0/0/0/0/0/0", deep, "send at most 8 dimensions");
}

#[test]
fn numbers_out_of_range_are_located() {
    let infinite = "write the string \"Infinity\" if infinity is meant, or use a wider dtype";
    float("[0,1e400]", "/data/1", "the number is above the largest finite F32", infinite);
    check(DType::F16, "65520", "/data", "the number is above the largest finite F16", infinite);
    let integers = "I8 takes integers only, without point or exponent";
    let write = "write 1, not 1.0 or 1e0, or use a float dtype";
    check(DType::I8, "[1.0]", "/data/0", integers, write);
    check(DType::I8, "[1e2]", "/data/0", integers, write);
    check(
        DType::I8,
        "[\"1\"]",
        "/data/0",
        "a string is not an integer",
        "write numbers without quotes",
    );
    check(DType::I8, "[01]", "/data/0", "a JSON number has no leading zeros", "");
    check(
        DType::I8,
        "[.5]",
        "/data/0",
        "a digit must precede the decimal point",
        "write 0.5, not .5",
    );
    let wider = "use a wider dtype";
    check(DType::I8, "[0,128]", "/data/1", "the integer is out of range for I8", wider);
    check(DType::U8, "[-1]", "/data/0", "the integer is out of range for U8", wider);
    check(
        DType::U64,
        "18446744073709551616",
        "/data",
        "the integer is out of range for U64",
        wider,
    );
    check(
        DType::I64,
        "-9223372036854775809",
        "/data",
        "the integer is out of range for I64",
        wider,
    );
}

#[test]
fn sizes_are_limited_before_memory_is_taken() {
    let with = |limits| {
        read_tensor(b"[1,2,3]", DType::F32, None, "/data", (&limits, &mut |_| Ok(()))).unwrap_err()
    };
    let error = with(Limits { max_elements: 2, ..Limits::default() });
    assert_eq!(
        (error.reason, &*error.detail),
        (Reason::TooLarge, "the tensor has more than 2 elements")
    );
    let error = with(Limits { max_bytes: 11, ..Limits::default() });
    assert_eq!(
        (error.at.as_deref(), &*error.detail),
        (Some("/data"), "the tensor takes more than 11 bytes")
    );
}

#[test]
fn base64_is_read() {
    let with = |text: &str| {
        read_base64(
            text.as_bytes(),
            DType::U8,
            &shape(&[4]),
            "/d",
            (&Limits::default(), &mut |_| Ok(())),
        )
    };
    for text in ["\"/+8BAg==\"", "\"/+8BAg\"", "\"\\/+8BAg==\"", " \"/+8BAg=\" "] {
        assert_eq!(with(text).unwrap().bytes(), [255, 239, 1, 2], "{text}");
    }
    let check = |text: &str, detail: &str| {
        let error = with(text).unwrap_err();
        assert_eq!((error.at.as_deref(), &*error.detail), (Some("/d"), detail), "{text}");
    };
    check("5", "a string of base64 is expected here");
    check("\"", "a string of base64 is expected here");
    check("\"AAAA\"", "the base64 holds 3 bytes where shape [4] of U8 takes 4");
    check("\"_-8BAg==\"", "the string is not base64");
    check("\"/+8BA\\n\"", "the string is not base64");
    check("\"/+8BA\\x\"", "the string is not base64");
    check("\"/+8BAh==\"", "the string is not base64");
    let empty = read_base64(
        b"\"\"",
        DType::F64,
        &shape(&[0, 3]),
        "/d",
        (&Limits::default(), &mut |_| Ok(())),
    );
    assert_eq!(empty.unwrap().shape().dims(), [0, 3]);
    let long = shape(&[1 << 31]);
    let error = read_base64(b"\"\"", DType::U8, &long, "/d", (&Limits::default(), &mut |_| Ok(())))
        .unwrap_err();
    assert_eq!(error.reason, Reason::TooLarge);
}

#[test]
fn small_values_are_read_strictly() {
    let text = r#" {"a": [1, -2.5, true, null, "x\n", {}], "b": {"c": []}} "#;
    let value = read_value(text.as_bytes(), "/o").unwrap();
    assert_eq!(value, serde_json::from_str::<serde_json::Value>(text).unwrap());
    let check = |text: &str, at: &str, detail: &str| {
        let error = read_value(text.as_bytes(), "/o").unwrap_err();
        assert_eq!((error.at.as_deref(), &*error.detail), (Some(at), detail), "{text}");
    };
    check(r#"{"a":[{"b":1,"\u0062":2}]}"#, "/o/a/0/b", "the name occurs twice in one object");
    check(r#"{"a":[0,NaN]}"#, "/o/a/1", "NaN and Infinity are not JSON");
    check(r#"{"a":1e400}"#, "/o/a", "the number is above the largest finite F64");
    check(r#"{"a":01}"#, "/o/a", "a JSON number has no leading zeros");
    check("nul", "/o", "the value is not valid JSON");
    check("True", "/o", "the value is not valid JSON");
    check("'x'", "/o", "the value is not valid JSON");
    check("1 2", "/o", "the value is followed by other bytes");
    check("[1,]", "/o", "a value is expected here");
    check("[1 2]", "/o", "a comma or a closing bracket is expected here");
    check("\"\u{1}\"", "/o", "the string is not valid JSON in UTF-8");
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read_value(nested(16).as_bytes(), "/o").is_ok());
    let at = format!("/o{}", "/0".repeat(16));
    check(&nested(17), &at, "values are nested more than 16 deep");
    check(&format!("\"{}\"", "x".repeat(1 << 16)), "/o", "the string is longer than 65536 bytes");
    check(&" ".repeat((16 << 20) + 1), "/o", "the value is longer than 16777216 bytes");
    let error = read_value(b"\"\xff\"", "/o").unwrap_err();
    assert_eq!(error.detail, "the string is not valid JSON in UTF-8");
}

#[test]
fn tensors_are_written_nested() {
    let codes: Vec<u8> = (0..=255).collect();
    let signed = Tensor::from_elements(DType::I8, shape(&[256]), &codes).unwrap();
    let expect: Vec<i8> = codes.iter().map(|code| code.cast_signed()).collect();
    assert_eq!(written(&signed), serde_json::to_string(&expect).unwrap());
    let unsigned = Tensor::from_elements(DType::U8, shape(&[256]), &codes).unwrap();
    assert_eq!(written(&unsigned), serde_json::to_string(&codes).unwrap());
    let floats = [1.0_f32, -0.0, 0.1, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let floats = Tensor::from_elements(DType::F32, shape(&[2, 1, 3]), &floats).unwrap();
    assert_eq!(written(&floats), r#"[[[1.0,-0.0,0.1]],[["NaN","Infinity","-Infinity"]]]"#);
    let half = Tensor::from_elements(DType::F16, shape(&[]), &[f16::from_f32(0.1)]).unwrap();
    assert_eq!(written(&half), "0.099975586");
    let check = |dims: &[usize], expect: &str| {
        assert_eq!(
            written(&Tensor::from_elements::<u8>(DType::U8, shape(dims), &[]).unwrap()),
            expect
        );
    };
    check(&[0], "[]");
    check(&[2, 0], "[[],[]]");
    check(&[0, 2], "[]");
    check(&[1, 2, 0, 3], "[[[],[]]]");
    check(&[1 << 31, 0], "[]");
    let wide = [i64::MIN, i64::MAX, 0, -1, 100, 1000];
    let wide = Tensor::from_elements(DType::I64, shape(&[6]), &wide).unwrap();
    assert_eq!(written(&wide), "[-9223372036854775808,9223372036854775807,0,-1,100,1000]");
}

#[test]
fn every_16_bit_code_is_written_and_read() {
    let codes: Vec<i16> = (i16::MIN..=i16::MAX).collect();
    let tensor = Tensor::from_elements(DType::I16, shape(&[256, 256]), &codes).unwrap();
    let text = written(&tensor);
    assert_eq!(read(&text, DType::I16).unwrap().bytes(), tensor.bytes());
    assert!(text.starts_with("[[-32768,-32767,") && text.ends_with(",32766,32767]]"));
}

proptest! {
    #[test]
    fn tensors_round_trip(
        dims in prop::collection::vec(1_usize..5, 0..5),
        kind in 0_usize..12,
        seed in any::<[u8; 32]>(),
    ) {
        let (dtype, shape) = (DType::ALL[kind], shape(&dims));
        let bytes: Vec<u8> = seed.into_iter().cycle().zip(0_usize..).map(|(byte, i)| byte ^ (i / 32).to_le_bytes()[0])
            .take(shape.len() * dtype.size()).collect();
        let tensor = Tensor::view(dtype, shape, Arc::new(Buffer::copy_of(&bytes)), 0).unwrap();
        let text = written(&tensor);
        let back = read(&text, dtype).unwrap();
        prop_assert_eq!(back.shape(), tensor.shape());
        prop_assert_eq!(written(&back), text.clone());
        if !text.contains('N') {
            prop_assert_eq!(back.bytes(), tensor.bytes());
        }
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read_value(text.as_bytes(), "").unwrap(), value);
    }

    #[test]
    fn strings_round_trip(text in ".{0,40}", control in any::<[u8; 4]>()) {
        let text = format!("{text}{}", control.map(|byte| char::from(byte % 128)).iter().collect::<String>());
        let mut out = Vec::new();
        write_string(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn arbitrary_text_never_panics(text in r#"[\[\]{}",:0-9eE.\-NaI \\tu]{0,40}"#) {
        let _ = members(text.as_bytes());
        let strict = serde_json::from_str::<serde_json::Value>(&text);
        if read_value(text.as_bytes(), "").is_ok() {
            prop_assert!(strict.is_ok(), "{}", text);
        }
        for dtype in [DType::F32, DType::U8] {
            if read(&text, dtype).is_ok() {
                prop_assert!(strict.is_ok(), "{}", text);
            }
        }
    }
}

/// Whoever gives room is asked often enough to end long work, and then it ends.
#[test]
fn long_work_ends_when_nobody_wants_it() {
    let numbers = format!("[{}1]", "1,".repeat(100_000));
    let bytes = format!("\"{}\"", "A".repeat(12 << 20));
    let tensor = Tensor::from_elements(DType::F64, shape(&[400_000]), &[0.1_f64; 400_000]).unwrap();
    let limits = Limits::default();
    type Work<'a> = &'a dyn Fn(Room<'_>) -> Result<(), CodecError>;
    let works: [(Work<'_>, usize); 3] = [
        (
            &|room| {
                let within: Within<'_> = (&limits, &mut |bytes| room(bytes));
                read_tensor(numbers.as_bytes(), DType::F32, None, "", within).map(drop)
            },
            6,
        ),
        (
            &|room| {
                let within: Within<'_> = (&limits, &mut |bytes| room(bytes));
                read_base64(bytes.as_bytes(), DType::U8, &shape(&[9 << 20]), "", within).map(drop)
            },
            3,
        ),
        (&|room| write_tensor(&mut Text::new(room), &tensor), 3),
    ];
    for (work, least) in works {
        let mut asked = 0;
        work(&mut |_| {
            asked += 1;
            Ok(())
        })
        .unwrap();
        assert!(asked >= least, "{asked}");
        let stopped = CodecError::new(Reason::Stopped, "a test");
        let mut left = asked / 2;
        let refused = work(&mut |_| {
            left = left.checked_sub(1).ok_or_else(|| stopped.clone())?;
            Ok(())
        });
        assert_eq!(refused, Err(stopped.clone()));
    }
}
