use ndarray::{Array, ArrayD};
use ndarray_npy::{ReadNpyExt, WriteNpyExt};
use proptest::prelude::*;

use super::super::{Limits, Reason};
use super::*;

fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/../../tests/golden/codec/{name}.npy", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn read_bytes(bytes: &[u8]) -> Result<Tensor, CodecError> {
    read(Arc::new(Buffer::copy_of(bytes)), (&Limits::default(), &mut |_| Ok(())))
}

/// A version 1 file of that header text and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    out.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

fn ramp(tensor: &Tensor) -> Vec<f64> {
    match tensor.reals() {
        quantd_core::tensor::Reals::F32(reals) => reals.iter().map(|&x| f64::from(x)).collect(),
        quantd_core::tensor::Reals::F64(reals) => reals.to_vec(),
    }
}

/// Types that NumPy has.
fn named() -> impl Iterator<Item = DType> {
    DType::ALL.into_iter().filter(|dtype| *dtype != DType::BF16 && !dtype.is_eighth())
}

#[test]
fn numpy_files_of_every_kind_are_read() {
    for dtype in named() {
        let kind = &descr(dtype)[1..];
        for prefix in ["le", "be", "fortran", "be_fortran"] {
            let tensor = read_bytes(&golden(&format!("{prefix}_{kind}"))).unwrap();
            assert_eq!(tensor.dtype(), dtype, "{prefix} {kind}");
            assert_eq!(tensor.shape().dims(), [2, 3], "{prefix} {kind}");
            assert_eq!(ramp(&tensor), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "{prefix} {kind}");
        }
    }
    let check = |name, dims: &[usize]| {
        let tensor = read_bytes(&golden(name)).unwrap();
        assert_eq!(tensor.shape().dims(), dims, "{name}");
        let expect: Vec<f64> =
            (0..u32::try_from(tensor.shape().len()).unwrap()).map(f64::from).collect();
        assert_eq!(ramp(&tensor), expect, "{name}");
    };
    check("fortran_cube", &[2, 3, 4]);
    check("version2", &[2, 3, 4]);
    check("version3", &[2, 3, 4]);
    check("scalar", &[]);
    check("empty", &[2, 0, 3]);
    check("vector", &[5]);
}

#[test]
fn native_arrays_are_not_copied() {
    let buffer = Arc::new(Buffer::copy_of(&golden("le_f4")));
    let end = buffer.bytes().as_ptr_range().end;
    let tensor = read(Arc::clone(&buffer), (&Limits::default(), &mut |_| Ok(()))).unwrap();
    assert_eq!(tensor.bytes().as_ptr_range().end, end);
    assert!(matches!(tensor.elements::<f32>(), std::borrow::Cow::Borrowed(_)));
}

#[test]
fn other_dtypes_are_refused_with_a_cure() {
    let check = |name, detail: &str, cure: &str| {
        let error = read_bytes(&golden(name)).unwrap_err();
        assert_eq!(error.reason, Reason::Unsupported, "{name}");
        assert_eq!((&*error.detail, &*error.cure), (detail, cure), "{name}");
        assert_eq!(error.at.as_deref(), Some("descr"));
    };
    let numbers = "convert with astype to a float or integer type";
    check("bool", "boolean arrays are not read", "convert with astype('u1')");
    check("complex", "complex arrays are not read", "send real and imaginary part apart");
    check("date", "arrays of dates and times are not read", numbers);
    check("text", "arrays of text are not read", numbers);
    check("structured", "structured arrays are not read", "send one array a field");
    let pickles = "object arrays are pickles and never read";
    check("object", pickles, "convert with astype to numbers");
    let opaque = "npy does not say whether two opaque bytes are bfloat16";
    check("bfloat16", opaque, "send safetensors, or convert with astype('float32')");
}

#[test]
fn hostile_headers_are_refused() {
    let check = |dict: &str, at: &str, detail: &str| {
        let error = read_bytes(&file(dict, &[0; 24])).unwrap_err();
        assert_eq!((error.at.as_deref(), &*error.detail), (Some(at), detail), "{dict}");
    };
    let shape = |shape: &str, detail: &str| {
        let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
        check(&dict, "shape", detail);
    };
    shape("(2**40,)", "the tuple of the shape is not closed");
    shape("(-1,)", "a dimension is not a plain non-negative integer");
    shape("(3,", "a dimension is not a plain non-negative integer");
    shape("(03,)", "a dimension is not a plain non-negative integer");
    shape("(0x6,)", "the tuple of the shape is not closed");
    shape("(1_0,)", "the tuple of the shape is not closed");
    shape("(,)", "a dimension is not a plain non-negative integer");
    shape("(6.0,)", "the tuple of the shape is not closed");
    shape("((6,),)", "a dimension is not a plain non-negative integer");
    shape("(6)", "the shape is not a tuple");
    shape("[6]", "the shape is not a tuple");
    shape("6", "the shape is not a tuple");
    shape("(99999999999999999999999,)", "a dimension is above 2^31");
    shape("(4294967296, 4294967296)", "dimension 0 is above 2^31");
    shape("(2147483648, 2147483648, 0)", "the product of the dimensions is too large");
    shape("(1,1,1,1,1,1,1,1,1)", "the array has more than 8 dimensions");
    shape("(2147483648,)", "the tensor has more than 1073741824 elements");
    let header = |dict: &str, detail: &str| check(dict, "header", detail);
    header("", "the npy header is not a dict");
    header("[]", "the npy header is not a dict");
    header("{'descr' '<f4'}", "a colon is expected in the npy header");
    header("{descr: '<f4'}", "a quoted name is expected in the npy header");
    header("{'descr': '<f4', 'x': 1}", "the npy header has an unknown key");
    header("{'d\\x65scr': '<f4'}", "a quoted name is expected in the npy header");
    header(
        "{'descr': '<f4' 'shape': ()}",
        "a comma or a closing brace is expected in the npy header",
    );
    header("{'descr': '<f4'} + {}", "the npy header holds more than one dict");
    check("{'descr': '<f4', 'descr': '<f4'}", "descr", "the key occurs twice in the npy header");
    check("{'shape': (6,)}", "descr", "the key is missing in the npy header");
    check("{'descr': 4}", "descr", "a quoted name is expected in the npy header");
    check(
        "{'descr': '|f4', 'fortran_order': False, 'shape': (6,)}",
        "descr",
        "the descr lacks its byte order",
    );
    check("{'fortran_order': 1}", "fortran_order", "fortran_order is neither True nor False");
    let other = |descr: &str, detail: &str| {
        check(
            &format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (6,)}}"),
            "descr",
            detail,
        );
    };
    other("<f16", "floats of this width are not read");
    other("", "elements of this type are not read");
    other("ü", "elements of this type are not read");
    other("bfloat16", "npy does not say whether two opaque bytes are bfloat16");
}

#[test]
fn accepted_spellings() {
    for dict in [
        "{\"shape\":(6,),\"descr\":\"=f4\",\"fortran_order\":False}",
        "{ 'shape' : ( 2 , 3 , ) , 'fortran_order' : True, 'descr' : '<f4' , } \n",
        "{'descr': 'f4', 'fortran_order': False, 'shape': (2L, 3L)}",
    ] {
        assert_eq!(read_bytes(&file(dict, &[0; 24])).unwrap().shape().len(), 6, "{dict}");
    }
}

#[test]
fn hostile_files_are_refused() {
    let check = |bytes: &[u8], reason, detail: &str| {
        let error = read_bytes(bytes).unwrap_err();
        assert_eq!((error.reason, &*error.detail), (reason, detail));
    };
    let good = golden("le_f4");
    check(b"", Reason::Malformed, "the body is empty, not an npy file");
    check(b"\x1f\x8b\x08", Reason::Malformed, "the body is a gzip stream, not an npy file");
    check(b"\x93NUMPZ\x01\x00", Reason::Malformed, "the file does not start with the npy magic");
    let ended = "the npy file ends inside its header";
    for cut in [6, 7, 8, 9, 10, 100] {
        check(&good[..cut], Reason::Malformed, ended);
    }
    check(
        b"\x93NUMPY\x04\x00\x00\x00",
        Reason::Unsupported,
        "this version of the npy format is not read",
    );
    let huge = b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}";
    check(huge, Reason::TooLarge, "the npy header is longer than 65536 bytes");
    check(
        &good[..good.len() - 1],
        Reason::Malformed,
        "23 bytes of data where shape [2, 3] of F32 takes 24",
    );
    let polyglot = [&good[..], b"PK\x05\x06"].concat();
    check(&polyglot, Reason::Malformed, "28 bytes of data where shape [2, 3] of F32 takes 24");
    check(
        &file("{'descr': '\0'}\u{0}", &[]),
        Reason::Malformed,
        "the npy header holds more than one dict",
    );
    let mut binary = file("{'descr': '<f4'}", &[]);
    binary[12] = 0xff;
    check(&binary, Reason::Malformed, "the npy header is not text");
    let tight = Limits { max_elements: 5, ..Limits::default() };
    let error = read(Arc::new(Buffer::copy_of(&good)), (&tight, &mut |_| Ok(()))).unwrap_err();
    assert_eq!(error.detail, "the tensor has more than 5 elements");
    let tight = Limits { max_bytes: 23, ..Limits::default() };
    let error = read(Arc::new(Buffer::copy_of(&good)), (&tight, &mut |_| Ok(()))).unwrap_err();
    assert_eq!(error.detail, "the array takes more than 23 bytes");
}

#[test]
fn our_headers_equal_those_of_numpy() {
    for dtype in named() {
        let theirs = golden(&format!("le_{}", &descr(dtype)[1..]));
        let ours = header(dtype, &Shape::new(vec![2, 3]).unwrap());
        assert_eq!(ours, &theirs[..ours.len()], "{dtype}");
        assert_eq!(theirs.len() - ours.len(), 6 * dtype.size());
    }
    for (name, dims) in [("scalar", vec![]), ("vector", vec![5]), ("empty", vec![2, 0, 3])] {
        let shape = Shape::new(dims).unwrap();
        let ours = header(DType::F32, &shape);
        assert_eq!(ours, &golden(name)[..ours.len()], "{name}");
    }
}

proptest! {
    #[test]
    fn agrees_with_ndarray_npy(dims in prop::collection::vec(0_usize..4, 0..4), fortran: bool) {
        let len: usize = dims.iter().product();
        let numbers: Vec<f32> = (0..u16::try_from(len).unwrap()).map(f32::from).collect();
        let array = if fortran {
            Array::from_shape_vec(IxDyn(&dims).f(), numbers).unwrap()
        } else {
            Array::from_shape_vec(IxDyn(&dims), numbers).unwrap()
        };
        let mut theirs = Vec::new();
        array.write_npy(&mut theirs).unwrap();
        let tensor = read_bytes(&theirs).unwrap();
        prop_assert_eq!(tensor.shape().dims(), &dims[..]);
        prop_assert_eq!(&*tensor.elements::<f32>(), &array.iter().copied().collect::<Vec<_>>()[..]);

        let mut ours = header(DType::F32, tensor.shape());
        prop_assert_eq!(ours.len() % ALIGN, 0);
        ours.extend(tensor.bytes());
        let back = ArrayD::<f32>::read_npy(&ours[..]).unwrap();
        prop_assert_eq!(back, array);
    }

    #[test]
    fn damaged_files_never_panic(at in 0_usize..152, byte: u8) {
        let mut bytes = golden("be_fortran_f4");
        bytes[at] = byte;
        let _ = read_bytes(&bytes);
    }
}
