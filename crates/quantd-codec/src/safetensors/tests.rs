use proptest::prelude::*;

use super::super::Reason;
use super::*;

fn golden(name: &str) -> Vec<u8> {
    let path =
        format!("{}/../../tests/golden/codec/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn read_bytes(bytes: &[u8]) -> Result<Document, CodecError> {
    read(Arc::new(Buffer::copy_of(bytes)), &Limits::default())
}

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.resize(out.len() + data, 0);
    out
}

fn check(header: &str, data: usize, reason: Reason, at: Option<&str>, detail: &str) {
    let error = read_bytes(&file(header, data)).unwrap_err();
    assert_eq!(
        (error.reason, error.at.as_deref(), &*error.detail),
        (reason, at, detail),
        "{header}"
    );
}

fn info(dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!("{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{begin},{end}]}}")
}

const UNCOVERED: &str = "the tensors overlap, leave holes, or do not end where the file ends";
const LACKING: &str = "the tensor lacks a valid dtype, shape or data_offsets";

#[test]
fn python_files_are_read() {
    let document = read_bytes(&golden("plain")).unwrap();
    assert_eq!(document.metadata["by"], "numpy");
    assert_eq!(document.metadata["note"], "a \"b\"");
    let find = |name: &str| {
        let found = document.tensors.iter().find(|(found, _)| found == name);
        &found.unwrap().1
    };
    assert_eq!(document.tensors.len(), 6);
    assert_eq!(find("weight").shape().dims(), [2, 3]);
    assert_eq!(&*find("weight").elements::<f32>(), &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(&*find("scalar").elements::<i64>(), &[7]);
    assert_eq!(find("scalar").shape().rank(), 0);
    assert_eq!(find("empty").shape().dims(), [0, 4]);
    assert_eq!(find("codes/ü").bytes(), [0, 1, 2, 3, 4]);
    assert_eq!(find("brain").dtype(), DType::BF16);
    assert_eq!(find("half").dtype(), DType::F16);
    let starts: Vec<_> = document.tensors.iter().map(|(_, t)| t.bytes().as_ptr()).collect();
    assert!(starts.is_sorted());
    assert!(read_bytes(&golden("none")).unwrap().tensors.is_empty());
}

#[test]
fn other_dtypes_name_the_tensor() {
    let error = read_bytes(&golden("bool")).unwrap_err();
    assert_eq!(error.reason, Reason::Unsupported);
    assert_eq!(error.at.as_deref(), Some("mask"));
    assert_eq!(error.detail, "the dtype of the tensor is not read here");
    assert!(error.cure.starts_with("convert it to one of F64, F32, "), "{}", error.cure);
    for (dtype, end) in [("F6_E2M3", 3), ("F4", 2), ("C64", 32), ("nonsense", 1)] {
        let header = format!("{{\"w\":{}}}", info(dtype, "[4]", 0, end));
        let data = usize::try_from(end).unwrap();
        let detail = "the dtype of the tensor is not read here";
        check(&header, data, Reason::Unsupported, Some("w"), detail);
    }
}

#[test]
fn tensors_of_other_dtypes_are_carried_as_they_are() {
    let read = |bytes: &[u8]| read_any(Arc::new(Buffer::copy_of(bytes)), &Limits::default());
    let members = [
        format!("\"f4\":{}", info("F4", "[3,2]", 5, 8)),
        format!("\"f32\":{}", info("F32", "[1]", 8, 12)),
        format!("\"mask\":{}", info("BOOL", "[5]", 0, 5)),
        format!("\"none\":{}", info("F8_E8M0", "[0,7]", 12, 12)),
    ];
    let mut bytes = file(&format!("{{{}}}", members.join(",")), 0);
    bytes.extend(0..12_u8);
    let document = read(&bytes).unwrap();
    let found: Vec<_> = document
        .tensors
        .iter()
        .map(|(name, x)| (name.as_str(), x.dtype_name(), x.shape().dims(), x.as_ref()))
        .collect();
    let data: Vec<u8> = (0..12).collect();
    assert_eq!(
        found,
        [
            ("mask", "BOOL", &[5][..], &data[..5]),
            ("f4", "F4", &[3, 2], &data[5..8]),
            ("f32", "F32", &[1], &data[8..]),
            ("none", "F8_E8M0", &[0, 7], &[]),
        ]
    );
    let is_known = |name: &str| ["f32", "none"].contains(&name);
    assert!(document.tensors.iter().all(|(name, x)| x.clone().known().is_ok() == is_known(name)));
    // No name that the format does not have, and no length that is not theirs.
    let error = |dtype: &str, shape: &str, end| {
        let header = format!("{{\"w\":{}}}", info(dtype, shape, 0, end));
        read(&file(&header, 2)).unwrap_err().detail.into_owned()
    };
    assert_eq!(error("F99", "[2]", 2), "the dtype of the tensor is not read here");
    assert_eq!(error("F4", "[3]", 2), "shape [3] of F4 does not end with a whole byte");
    let span = "the data_offsets do not span the 3 bytes of shape [3] of BOOL";
    assert_eq!(error("BOOL", "[3]", 2), span);
}

#[test]
fn coverage_is_exact() {
    let refuse = |members: &[String], data, at| {
        let header = format!("{{{}}}", members.join(","));
        check(&header, data, Reason::Malformed, at, UNCOVERED);
    };
    let tensor = |name: &str, begin, end| format!("\"{name}\":{}", info("U8", "[4]", begin, end));
    refuse(&[tensor("a", 0, 4), tensor("b", 5, 9)], 9, Some("b"));
    refuse(&[tensor("a", 0, 4), tensor("b", 3, 7)], 7, Some("b"));
    refuse(&[tensor("a", 0, 4), tensor("b", 0, 4)], 4, Some("b"));
    refuse(&[tensor("a", 4, 8)], 8, Some("a"));
    refuse(&[tensor("a", 0, 4)], 5, None);
    refuse(&[tensor("a", 0, 4)], 3, None);
    refuse(&[], 1, None);
    let zip = [&golden("plain")[..], b"PK\x05\x06"].concat();
    assert_eq!(read_bytes(&zip).unwrap_err().detail, UNCOVERED);
}

#[test]
fn sizes_are_checked_before_use() {
    let refuse = |dtype, shape: &str, end, reason, detail: &str| {
        check(&format!("{{\"w\":{}}}", info(dtype, shape, 0, end)), 8, reason, Some("w"), detail);
    };
    let span = |expected, shape, dtype| {
        format!("the data_offsets do not span the {expected} bytes of shape {shape} of {dtype}")
    };
    refuse("F32", "[2]", 7, Reason::Malformed, &span(8, "[2]", "F32"));
    refuse("F32", "[2]", u64::MAX, Reason::Malformed, &span(8, "[2]", "F32"));
    refuse(
        "F32",
        "[2147483648,2147483648,0]",
        0,
        Reason::TooLarge,
        "the product of the dimensions is too large",
    );
    refuse("F32", "[18446744073709551615]", 8, Reason::TooLarge, "dimension 0 is above 2^31");
    refuse(
        "F32",
        "[1,1,1,1,1,1,1,1,2]",
        8,
        Reason::TooLarge,
        "9 dimensions, at most 8 are allowed",
    );
    refuse(
        "U8",
        "[2147483648]",
        8,
        Reason::TooLarge,
        "the tensor has more than 1073741824 elements",
    );
    refuse("F32", "[-2]", 8, Reason::Malformed, LACKING);
    refuse("F32", "[2.0]", 8, Reason::Malformed, LACKING);
    refuse("F32", "2", 8, Reason::Malformed, LACKING);
    let swapped = format!("{{\"w\":{}}}", info("U8", "[4]", 8, 4));
    check(&swapped, 8, Reason::Malformed, Some("w"), &span(4, "[4]", "U8"));
}

#[test]
fn lengths_are_checked_before_use() {
    let refuse = |bytes: &[u8], reason, detail: &str| {
        let error = read_bytes(bytes).unwrap_err();
        assert_eq!((error.reason, &*error.detail), (reason, detail));
    };
    let ended = "the safetensors file ends inside its header";
    let long = "the safetensors header is longer than 16777216 bytes";
    refuse(b"", Reason::Malformed, "the body is empty, not a safetensors file");
    let page = b"<html><body>404</body></html>";
    refuse(page, Reason::Malformed, "the body is an HTML or XML document, not a safetensors file");
    refuse(&[2, 0, 0, 0, 0, 0, 0], Reason::Malformed, ended);
    refuse(&[3, 0, 0, 0, 0, 0, 0, 0, b'{', b'}'], Reason::Malformed, ended);
    for length in [u64::MAX, 4 << 30] {
        let head = length.to_le_bytes();
        refuse(&head, Reason::Malformed, ended);
        refuse(&[&head, &b"{}"[..]].concat(), Reason::TooLarge, long);
    }
    refuse(&[0; 8], Reason::Malformed, ended);
    refuse(&[0; 9], Reason::Malformed, "the safetensors header does not start with a brace");
    refuse(
        &file(" {}", 0),
        Reason::Malformed,
        "the safetensors header does not start with a brace",
    );
}

#[test]
fn names_are_checked() {
    let one = info("U8", "[0]", 0, 0);
    let twice = format!("{{\"a\":{one},\"\\u0061\":{one}}}");
    check(&twice, 0, Reason::Malformed, Some("header /a"), "the name occurs twice in one object");
    let control = format!("{{\"a\\u0000b\":{one}}}");
    check(&control, 0, Reason::Malformed, Some("header"), "a tensor name holds control characters");
    let long = format!("{{\"{}\":{one}}}", "n".repeat(513));
    check(
        &long,
        0,
        Reason::TooLarge,
        Some("header byte 1"),
        "a member name is longer than 512 bytes",
    );
    let field = "{\"w\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}";
    let detail = "the description of the tensor is malformed: the name occurs twice in one object";
    check(field, 0, Reason::Malformed, Some("w"), detail);
    check("{\"w\":{}}", 0, Reason::Malformed, Some("w"), LACKING);
    check("{\"w\":{\"dtype\":5}}", 0, Reason::Malformed, Some("w"), LACKING);
    let text = "the description of the tensor is malformed: a JSON object is expected here";
    check("{\"w\":[\"U8\",[0],[0,0]]}", 0, Reason::Malformed, Some("w"), text);
    let deep = format!(
        "{{\"w\":{{\"dtype\":\"U8\",\"x\":{}{}}}}}",
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    check(&deep, 0, Reason::Malformed, Some("w"), LACKING);
}

#[test]
fn metadata_is_strings() {
    let detail = "the metadata is not an object of strings";
    for metadata in ["5", "null", "[]", "{\"a\":1}", "{\"a\":{}}", "{\"a\":null}"] {
        let header = format!("{{\"__metadata__\":{metadata}}}");
        check(&header, 0, Reason::Malformed, Some(METADATA), detail);
    }
    let twice = "{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}";
    check(twice, 0, Reason::Malformed, Some(METADATA), "the name occurs twice in one object");
}

#[test]
fn counts_are_limited() {
    let members: Vec<_> = (0..4).map(|i| format!("\"{i}\":{}", info("U8", "[0]", 0, 0))).collect();
    let bytes = file(&format!("{{{}}}", members.join(",")), 0);
    let with = |max_tensors| {
        let limits = Limits { max_tensors, ..Limits::default() };
        read(Arc::new(Buffer::copy_of(&bytes)), &limits).map(|document| document.tensors.len())
    };
    assert_eq!(with(4), Ok(4));
    assert_eq!(with(3).unwrap_err().detail, "the file holds more than 3 tensors");
    assert_eq!(with(2).unwrap_err().detail, "the object has more than 3 members");
}

proptest! {
    #[test]
    fn our_headers_are_read_back_and_by_the_crate(
        shapes in prop::collection::vec(prop::collection::vec(0_usize..4, 0..4), 0..5),
        kinds in prop::collection::vec(0_usize..12, 5),
        text in "\\PC{0,20}",
    ) {
        let names: Vec<String> = (0..shapes.len()).map(|i| format!("{text}{i}")).collect();
        let entries: Vec<_> = shapes.iter().zip(&names).zip(&kinds).map(|((shape, name), &kind)| {
            let dtype = DType::ALL[kind];
            let byte_len = shape.iter().product::<usize>() * dtype.size();
            Entry { name, dtype: dtype.name(), shape, byte_len }
        }).collect();
        let metadata = BTreeMap::from([("key".to_owned(), text)]);
        let mut bytes = header(&entries, &metadata);
        prop_assert_eq!(bytes.len() % 8, 0);
        bytes.resize(bytes.len() + entries.iter().map(|entry| entry.byte_len).sum::<usize>(), 1);
        let document = read_bytes(&bytes).unwrap();
        prop_assert_eq!(&document.metadata, &metadata);
        prop_assert_eq!(document.tensors.len(), entries.len());
        let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for entry in &entries {
            let view = theirs.tensor(entry.name).unwrap();
            let (_, ours) = document.tensors.iter().find(|(name, _)| name == entry.name).unwrap();
            prop_assert_eq!(view.data(), ours.bytes());
            prop_assert_eq!(view.shape(), ours.shape().dims());
        }
    }

    #[test]
    fn damaged_files_never_panic(at in 0_usize..400, byte: u8) {
        let mut bytes = golden("plain");
        if let Some(slot) = bytes.get_mut(at) {
            *slot = byte;
        }
        let _ = read_bytes(&bytes);
    }
}
