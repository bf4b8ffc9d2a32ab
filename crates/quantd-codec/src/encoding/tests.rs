use proptest::prelude::*;

use super::super::Reason;
use super::*;

const CODED: [Encoding; 3] = [Encoding::Gzip, Encoding::Zstd, Encoding::Deflate];

fn encode(encoding: Encoding, data: &[u8]) -> Result<Vec<u8>, CodecError> {
    let parts = data.chunks(1000);
    super::encode(encoding, parts, &mut |_| Ok(())).map(|pieces| pieces.concat())
}

fn decode_up_to(encoding: Encoding, input: &[u8], max: usize) -> Result<Buffer, CodecError> {
    decode(encoding, input, max, &mut |_| Ok(()))
}

fn refused(encoding: Encoding, input: &[u8], max: usize) -> (Reason, String) {
    let error = decode_up_to(encoding, input, max).unwrap_err();
    (error.reason, error.detail.into_owned())
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24).to_le_bytes()[0]
    })
    .take(len)
    .collect()
}

#[test]
fn names_round_trip() {
    for encoding in Encoding::ALL {
        assert_eq!(Encoding::from_name(encoding.name()), Some(encoding));
    }
    assert_eq!(Encoding::from_name("X-GZip"), Some(Encoding::Gzip));
    assert_eq!(Encoding::from_name("br"), None);
    assert_eq!(Encoding::from_name("gzip, gzip"), None);
}

#[test]
fn bombs_stop_at_the_limit() {
    let zeros = vec![0_u8; 64 << 20];
    for encoding in CODED {
        let bomb = encode(encoding, &zeros).unwrap();
        assert!(bomb.len() < zeros.len() / 200, "{encoding:?}");
        let mut peak = 0;
        let error = decode(encoding, &bomb, 1 << 30, &mut |total| {
            peak = peak.max(total);
            Ok(())
        })
        .unwrap_err();
        assert_eq!(error.reason, Reason::TooLarge);
        assert_eq!(error.detail, "the body decodes to more than 200 times its size");
        assert_eq!(error.cure, "send it without content coding");
        assert!(peak <= (bomb.len() * MAX_RATIO).max(FREE_BYTES) + 1, "{encoding:?} {peak}");
    }
}

#[test]
fn the_maximum_is_exact() {
    let data = noise(5000);
    for encoding in Encoding::ALL {
        let coded = encode(encoding, &data).unwrap();
        assert_eq!(decode_up_to(encoding, &coded, 5000).unwrap().bytes(), data);
        let text = "the body decodes to more than 4999 bytes".to_owned();
        assert_eq!(refused(encoding, &coded, 4999), (Reason::TooLarge, text));
    }
}

#[test]
fn small_constant_tensors_are_no_bombs() {
    for encoding in CODED {
        let coded = encode(encoding, &vec![0; FREE_BYTES]).unwrap();
        let decoded = decode_up_to(encoding, &coded, usize::MAX).unwrap();
        assert_eq!(decoded.bytes().len(), FREE_BYTES);
    }
}

#[test]
fn broken_streams_are_refused() {
    let data = noise(3000);
    for encoding in CODED {
        let name = encoding.name();
        let coded = encode(encoding, &data).unwrap();
        for cut in [1, 5, 100, coded.len() - 1] {
            let (reason, text) = refused(encoding, &coded[..cut], 1 << 20);
            assert_eq!(reason, Reason::Malformed);
            assert_eq!(text, format!("the {name} body is truncated"), "cut at {cut}");
        }
        let corrupt = format!("the {name} body is corrupt or followed by other bytes");
        let trailing = [&coded[..], b"PK\x03\x04 garbage behind it"].concat();
        assert_eq!(refused(encoding, &trailing, 1 << 20), (Reason::Malformed, corrupt.clone()));
        let plain = b"{\"data\": [1, 2, 3]} and more than a header";
        assert_eq!(refused(encoding, plain, 1 << 20), (Reason::Malformed, corrupt));
        let empty = format!("the {name} body is empty");
        assert_eq!(refused(encoding, b"", 1 << 20), (Reason::Malformed, empty));
    }
    let mut flipped = encode(Encoding::Gzip, &data).unwrap();
    let crc = flipped.len() - 6;
    flipped[crc] ^= 1;
    assert_eq!(refused(Encoding::Gzip, &flipped, 1 << 20).0, Reason::Malformed);
}

#[test]
fn members_and_frames_are_joined() {
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let mut coded = encode(encoding, b"first ").unwrap();
        coded.extend(encode(encoding, b"").unwrap());
        coded.extend(encode(encoding, b"second").unwrap());
        assert_eq!(decode_up_to(encoding, &coded, 12).unwrap().bytes(), b"first second");
        assert_eq!(refused(encoding, &coded, 11).0, Reason::TooLarge);
    }
}

#[test]
fn large_zstd_windows_are_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(24).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&noise(20 << 20)).unwrap();
    let coded = encoder.finish().unwrap();
    let error = decode_up_to(Encoding::Zstd, &coded, 1 << 30).unwrap_err();
    assert_eq!(error.reason, Reason::Unsupported);
    assert_eq!(error.detail, "the zstd window is above 8 MiB");
}

#[test]
fn admission_may_refuse() {
    for encoding in Encoding::ALL {
        let coded = encode(encoding, &noise(100)).unwrap();
        let refuse = &mut |_| Err(CodecError::too_large("busy"));
        assert_eq!(decode(encoding, &coded, 1000, refuse).unwrap_err().detail, "busy");
    }
}

#[test]
fn wrong_size_hints_do_no_harm() {
    let mut coded = encode(Encoding::Gzip, &noise(300)).unwrap();
    let len = coded.len();
    coded[len - 4..].copy_from_slice(&[0xff, 0, 0, 0]);
    assert_eq!(refused(Encoding::Gzip, &coded, 1000).0, Reason::Malformed);
    coded.truncate(len - 4);
    coded.extend(u32::MAX.to_le_bytes());
    assert_eq!(refused(Encoding::Gzip, &coded, 1000).0, Reason::Malformed);
}

proptest! {
    #[test]
    fn round_trips(data in prop::collection::vec(any::<u8>(), 0..3000)) {
        for encoding in Encoding::ALL {
            let coded = encode(encoding, &data).unwrap();
            let decoded = decode_up_to(encoding, &coded, data.len()).unwrap();
            prop_assert_eq!(decoded.bytes(), &data[..]);
            if !coded.is_empty() {
                prop_assert_eq!(start(encoding, &coded, 64).unwrap(), &data[..data.len().min(64)]);
            }
        }
    }
}

#[test]
fn long_work_ends_when_nobody_wants_it() {
    let stopped = CodecError::new(Reason::Stopped, "a test");
    let until = |asked: usize| {
        let (mut left, stopped) = (asked, stopped.clone());
        move |_: usize| {
            left = left.checked_sub(1).ok_or_else(|| stopped.clone())?;
            Ok(())
        }
    };
    let zeros = vec![0_u8; FREE_BYTES];
    for encoding in CODED {
        // Four times a MiB, though next to nothing is written.
        let encoded = super::encode(encoding, [&zeros], &mut until(3));
        assert_eq!(encoded.unwrap_err(), stopped, "{encoding:?}");
        let coded = encode(encoding, &zeros).unwrap();
        assert_eq!(decode(encoding, &coded, FREE_BYTES, &mut until(3)).unwrap_err(), stopped);
    }
}
