use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use futures::StreamExt;
use futures::stream;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use http::{HeaderMap, HeaderValue, header};

use super::names::Coding;
use super::*;
use crate::platform::fake::now;

const MIB: usize = 1 << 20;

/// The default of `spin.toml`.
const BODY_BYTES_MAX: usize = 10 * MIB;

/// What a decoder takes beside what it has decoded, in bytes, when it has no window.
const DECODER_BYTES_MAX: usize = 512 * 1024;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// A frame of zstd with a header as given and its content in blocks as it is.
fn zstd_as_it_is(header: &[u8], content: &[u8]) -> Vec<u8> {
    let mut frame = [&FRAME[..], header].concat();
    let mut blocks = content.chunks(128 * 1024);
    let mut next = blocks.next().unwrap_or_default();
    loop {
        let block = std::mem::take(&mut next);
        let following = blocks.next();
        let header = (block.len() as u32) << 3 | u32::from(following.is_none());
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
        let Some(following) = following else { return frame };
        next = following;
    }
}

/// What a frame of zstd begins with.
const FRAME: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();

type Encode = fn(&[u8]) -> Vec<u8>;

/// Those that tell when what they have encoded was changed.
const CHECKED: [(Coding, Encode); 3] =
    [(Coding::Gzip, gzip), (Coding::Deflate, zlib), (Coding::Zstd, zstd)];

/// Each way to encode, with the coding that it is.
const ENCODERS: [(Coding, Encode); 4] =
    [CHECKED[0], CHECKED[1], CHECKED[2], (Coding::Deflate, raw_deflate)];

fn text() -> Vec<u8> {
    (0..40).map(|index| format!("{{\"event_id\":\"{index}\"}}\n")).collect::<String>().into()
}

fn decode_parts(
    coding: Coding,
    parts: &[&[u8]],
    bytes_max: usize,
) -> Result<Vec<u8>, (u16, String)> {
    let mut decoder = Decoder::new(Some(coding), bytes_max);
    let written = parts.iter().try_for_each(|part| decoder.write(part));
    let decoded = written.and_then(|()| decoder.end());
    decoded.map_err(|problem| (problem.status().as_u16(), problem.detail().to_owned()))
}

fn decode(coding: Coding, encoded: &[u8]) -> Result<Vec<u8>, (u16, String)> {
    decode_parts(coding, &[encoded], BODY_BYTES_MAX)
}

#[track_caller]
fn check_refused(coding: Coding, encoded: &[u8], why: &str) {
    let (status, detail) = decode(coding, encoded).unwrap_err();
    let begin = format!("The body is not {}: ", coding.name());
    assert!(status == 422 && detail.starts_with(&begin), "{status} {detail}");
    assert!(detail.contains(why), "{detail}");
}

#[test]
fn one_coding_at_most_and_a_known_one() {
    for (values, expected) in [
        (&[][..], Ok(None)),
        (&[""], Ok(None)),
        (&[" , identity,"], Ok(None)),
        (&["Identity", "IDENTITY"], Ok(None)),
        (&["gzip"], Ok(Some(Coding::Gzip))),
        (&["X-GZip"], Ok(Some(Coding::Gzip))),
        (&["identity, gzip"], Ok(Some(Coding::Gzip))),
        (&["", " deflate "], Ok(Some(Coding::Deflate))),
        (&["zstd"], Ok(Some(Coding::Zstd))),
        (&["br"], Err("The content coding br is not supported here")),
        (&["gzip;q=1"], Err("The content coding gzip;q=1 is not supported here")),
        (&["*"], Err("The content coding * is not supported here")),
        (&["gzip, gzip"], Err("A body has one content coding at most")),
        (&["gzip,br"], Err("A body has one content coding at most")),
        (&["deflate", "zstd"], Err("A body has one content coding at most")),
    ] {
        let values_of = |values: &[&str]| -> HeaderMap {
            let value = |value: &&str| HeaderValue::from_str(value).unwrap();
            values.iter().map(|one| (header::CONTENT_ENCODING, value(one))).collect()
        };
        let told = OF_WHOLE_BODIES.of(&values_of(values));
        let told = told.map_err(|problem| problem.into_reply());
        match (told, expected) {
            (Ok(told), expected) => assert_eq!(Ok(told), expected, "{values:?}"),
            (Err(reply), expected) => {
                assert_eq!(reply.headers[header::ACCEPT_ENCODING], "gzip, deflate, zstd");
                let detail = crate::testing::json(reply)["detail"].to_string();
                assert!(detail.contains(expected.unwrap_err()), "{values:?}: {detail}");
            }
        }
    }
    let zstd = [(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"))].into_iter();
    let reply = OF_STREAMS.of(&zstd.collect()).unwrap_err().into_reply();
    assert_eq!(reply.headers[header::ACCEPT_ENCODING], "gzip, deflate");
}

#[test]
fn decodes_what_was_encoded_however_it_is_cut() {
    let long: Vec<u8> = text().repeat(3_000);
    for (coding, encode) in ENCODERS {
        for content in [text(), long.clone(), vec![], vec![7]] {
            let encoded = encode(&content);
            assert_eq!(decode(coding, &encoded).unwrap(), content, "{coding:?}");
            for length in [1, 7, 1_000, 100_000] {
                let parts: Vec<_> = encoded.chunks(length).collect();
                let decoded = decode_parts(coding, &parts, content.len());
                assert_eq!(decoded.as_ref(), Ok(&content), "{coding:?} {length}");
            }
        }
        assert_eq!(decode(coding, b""), Ok(vec![]), "{coding:?}: nothing");
    }
}

#[test]
fn several_in_a_row_are_one() {
    let (one, two) = (text(), text().repeat(2));
    let both = [&one[..], &two, &one].concat();
    let skippable = [&0x184d_2a5f_u32.to_le_bytes()[..], &[3, 0, 0, 0, 1, 2, 3]].concat();
    let members = [gzip(&one), gzip(b""), gzip(&two), gzip(&one)].concat();
    let empty = zstd_as_it_is(&[0x20, 0], b"");
    let frames =
        [&skippable, &zstd(&one), &empty, &skippable, &zstd(&two), &zstd(&one), &skippable];
    let frames = frames.map(Vec::as_slice).concat();
    for (coding, encoded) in [(Coding::Gzip, members), (Coding::Zstd, frames)] {
        for length in [1, 5, 64, encoded.len()] {
            let parts: Vec<_> = encoded.chunks(length).collect();
            assert_eq!(decode_parts(coding, &parts, both.len()).as_ref(), Ok(&both), "{coding:?}");
        }
    }
    assert_eq!(decode(Coding::Zstd, &skippable), Ok(vec![]));
}

#[test]
fn members_have_an_end() {
    let member = gzip(b"1");
    let most = member.repeat(GZIP_MEMBERS_MAX as usize);
    assert_eq!(decode(Coding::Gzip, &most).unwrap().len(), GZIP_MEMBERS_MAX as usize);
    check_refused(Coding::Gzip, &[most.clone(), member].concat(), "too many members");
    let (parts, problem) = parts_of(Coding::Gzip, &[&most, &most]);
    assert_eq!((parts.concat().len(), problem), (2 * GZIP_MEMBERS_MAX as usize, None));
}

#[test]
fn what_is_cut_off_is_none() {
    for (coding, encode) in ENCODERS {
        let encoded = encode(&text());
        for length in 1..encoded.len() {
            let (status, detail) = decode(coding, &encoded[..length]).unwrap_err();
            assert_eq!(status, 422, "{coding:?} {length}: {detail}");
        }
        check_refused(coding, &encoded[..encoded.len() / 2], "it ends too early");
    }
}

#[test]
fn what_follows_is_none() {
    for (coding, encode) in ENCODERS {
        for garbage in
            [&b"\n"[..], b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", b"{}garbage garbage"]
        {
            let encoded = [&encode(&text()), garbage].concat();
            assert_eq!(decode(coding, &encoded).unwrap_err().0, 422, "{coding:?} {garbage:?}");
        }
        // Not encoded at all.
        assert_eq!(decode(coding, &text()).unwrap_err().0, 422, "{coding:?}");
    }
}

#[test]
fn what_was_changed_is_none() {
    for (coding, encode) in CHECKED {
        let mut encoded = encode(&text());
        for place in 0..encoded.len() {
            for bit in 0..8 {
                encoded[place] ^= 1 << bit;
                if let Ok(decoded) = decode(coding, &encoded) {
                    assert!(decoded == text(), "{coding:?}: bit {bit} of byte {place}");
                }
                encoded[place] ^= 1 << bit;
            }
        }
    }
    let mut checksum = gzip(b"1");
    let place = checksum.len() - 6;
    checksum[place] ^= 1;
    check_refused(Coding::Gzip, &checksum, "checksum");
    let mut checksum = zstd(b"1");
    *checksum.last_mut().unwrap() ^= 1;
    check_refused(Coding::Zstd, &checksum, "a frame does not have its checksum");
}

#[test]
fn frames_that_want_too_much_are_refused() {
    // 2^(10 + exponent), exponent << 3.
    let window = |exponent: u8, eighths: u8| [0, exponent << 3 | eighths];
    let of = |header: &[u8]| zstd_as_it_is(header, b"1");
    let is = |header: &[u8]| decode(Coding::Zstd, &of(header));
    assert_eq!(is(&window(0, 0)), Ok(b"1".to_vec()));
    assert_eq!(is(&window(13, 0)), Ok(b"1".to_vec()), "8 MiB");
    let too_large = "a frame needs a window of 9437184 bytes, more than 8388608";
    check_refused(Coding::Zstd, &of(&window(13, 1)), too_large);
    check_refused(Coding::Zstd, &of(&window(31, 7)), "a frame");
    // A dictionary of each length, and the one that is none.
    for header in [&[1, 0, 9][..], &[2, 0, 9, 9], &[3, 0, 9, 9, 9, 9]] {
        check_refused(Coding::Zstd, &of(header), "a frame needs a dictionary");
    }
    assert_eq!(is(&[1, 0, 0]), Ok(b"1".to_vec()));
    // Lengths of each size, right and wrong.
    for header in [&[0x20, 1][..], &[0xa0, 1, 0, 0, 0], &[0xe0, 1, 0, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(is(header), Ok(b"1".to_vec()), "{header:?}");
    }
    check_refused(Coding::Zstd, &of(&[0x20, 2]), "another length");
    check_refused(Coding::Zstd, &of(&[0x60, 0, 0]), "another length");
    check_refused(Coding::Zstd, &of(&[8, 0]), "not known");
    // One that says that it is too long is not decoded at all.
    for header in [&[0xe0, 0, 0, 0, 0, 0, 0, 0, 0x7f][..], &[0xc0, 0, 0, 0, 0, 1, 0, 0, 0, 0]] {
        let measured = allocation_counter::measure(|| {
            assert!(matches!(is(header).unwrap_err().0, 413 | 422), "{header:?}");
        });
        assert!(measured.bytes_max < 100_000, "{measured:?}");
    }
}

/// Bodies that are small and stand for many times as much.
fn bombs() -> Vec<(&'static str, Coding, Vec<u8>)> {
    let zeros = vec![0; 64 * MIB];
    // Blocks that repeat a byte: one of 128 KiB each.
    let repeated = |header: &[u8]| {
        let block = &((128 << 10) << 3 | 0b010_u32).to_le_bytes()[..3];
        let blocks = [block, b"x"].concat().repeat(4_000);
        [&FRAME[..], header, &blocks].concat()
    };
    vec![
        ("gzip", Coding::Gzip, gzip(&zeros)),
        ("members of gzip", Coding::Gzip, gzip(&zeros[..MIB]).repeat(64)),
        ("zlib", Coding::Deflate, zlib(&zeros)),
        ("deflate", Coding::Deflate, raw_deflate(&zeros)),
        ("zstd", Coding::Zstd, zstd(&zeros)),
        ("frames of zstd", Coding::Zstd, zstd(&zeros[..MIB]).repeat(64)),
        ("zstd with a window", Coding::Zstd, repeated(&[0, 13 << 3])),
        ("zstd with a small one", Coding::Zstd, repeated(&[0, 7 << 3])),
    ]
}

#[test]
fn bombs_take_no_more_memory_than_their_limit() {
    for (name, coding, encoded) in bombs() {
        for bytes_max in [1_000, BODY_BYTES_MAX] {
            let measured = allocation_counter::measure(|| {
                let (status, detail) = decode_parts(coding, &[&encoded], bytes_max).unwrap_err();
                assert_eq!(status, 413, "{name}: {detail}");
                assert!(detail.contains("when it is decoded"), "{detail}");
            });
            // What is decoded is there twice while it grows, and so is the window.
            let window = if name == "zstd with a window" { 13 * MIB } else { 0 };
            let may = 2 * bytes_max + window + DECODER_BYTES_MAX;
            println!("{name} {bytes_max}: {}", measured.bytes_max);
            assert!(measured.bytes_max as usize <= may, "{name}: {measured:?}");
        }
    }
}

/// A block of a few bytes whose literals are more than a block may have.
#[test]
fn blocks_are_no_longer_than_they_may_be() {
    let with_literals = |count: u32| {
        // A byte so many times, and no sequences.
        let literals = count << 4 | 0b1101;
        let section = [&literals.to_le_bytes()[..3], &[b'x', 0]].concat();
        let block = (section.len() as u32) << 3 | 0b101;
        [&FRAME[..], &[0, 13 << 3], &block.to_le_bytes()[..3], &section].concat()
    };
    let longest = 128 * 1024;
    assert_eq!(decode(Coding::Zstd, &with_literals(longest)), Ok(vec![b'x'; 128 * 1024]));
    check_refused(Coding::Zstd, &with_literals(longest + 1), "a block is too long");
    let measured = allocation_counter::measure(|| {
        check_refused(Coding::Zstd, &with_literals(0xf_ffff), "a block is too long");
    });
    assert!(measured.bytes_max < 100_000, "{measured:?}");
}

#[test]
fn the_longest_body_takes_less_than_32_mib() {
    let mut random = Random(1);
    let content: Vec<u8> = (0..BODY_BYTES_MAX).map(|_| random.next() as u8).collect();
    // As it is, in the greatest window: what compresses well takes no more.
    let in_window = |content: &[u8]| zstd_as_it_is(&[0, 13 << 3], content);
    for (coding, encode) in ENCODERS.into_iter().chain([(Coding::Zstd, in_window as _)]) {
        let encoded: Vec<u8> = encode(&content);
        let measured = allocation_counter::measure(|| {
            let mut decoder = Decoder::new(Some(coding), BODY_BYTES_MAX);
            encoded.chunks(16 * 1024).for_each(|part| decoder.write(part).unwrap());
            assert!(decoder.end().unwrap() == content, "{coding:?}");
        });
        println!("{coding:?}: {}", measured.bytes_max);
        assert!(measured.bytes_max < 32 * MIB as u64, "{coding:?}: {measured:?}");
    }
}

/// A small generator, the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Changes `bytes` a little.
    fn change(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(4) {
            let place = self.below(bytes.len().max(1));
            match self.below(6) {
                _ if bytes.is_empty() => bytes.push(self.next() as u8),
                0 => bytes[place] = self.next() as u8,
                1 => bytes[place] ^= 1 << self.below(8),
                2 => bytes.truncate(place),
                3 => bytes.insert(place, self.next() as u8),
                4 => drop(bytes.remove(place)),
                _ => {
                    let end = place + self.below(bytes.len() - place);
                    bytes.extend_from_within(place..end);
                }
            }
        }
    }
}

#[test]
fn whatever_comes_is_decoded_or_refused() {
    const BODIES: usize = 100_000;
    const BYTES_MAX: usize = 10_000;
    let mut random = Random(14);
    let contents = [text(), b"{}".to_vec(), text().repeat(20), vec![b'x'; 3_000]];
    let seeds: Vec<(Coding, Vec<u8>)> = ENCODERS
        .iter()
        .flat_map(|(coding, encode)| contents.iter().map(|content| (*coding, encode(content))))
        .chain([(Coding::Zstd, zstd_as_it_is(&[0, 13 << 3], &text()))])
        .collect();
    let (mut decoded, mut worst) = (0, 0);
    for _ in 0..BODIES {
        let (coding, mut encoded) = seeds[random.below(seeds.len())].clone();
        random.change(&mut encoded);
        let (before, after) = encoded.split_at(random.below(encoded.len().max(1)));
        let measured = allocation_counter::measure(|| {
            match decode_parts(coding, &[before, after], BYTES_MAX) {
                Ok(content) => {
                    assert!(content.len() <= BYTES_MAX);
                    decoded += 1;
                }
                Err((status, detail)) => assert!([413, 422].contains(&status), "{detail}"),
            }
        });
        worst = worst.max(measured.bytes_max);
    }
    println!("{decoded} of {BODIES} were bodies, at most {worst} bytes");
    assert!(decoded > 0 && decoded < BODIES);
    assert!(worst < 4 * MIB as u64, "{worst}");
}

/// The parts of a stream, and its problem.
fn parts_of(coding: Coding, encoded: &[&[u8]]) -> (Vec<Vec<u8>>, Option<String>) {
    let encoded: Vec<_> =
        encoded.iter().map(|part| Ok(bytes::Bytes::copy_from_slice(part))).collect();
    let parts: Vec<_> = now(decoded_parts(stream::iter(encoded), coding).collect());
    let (mut read, mut problem) = (Vec::new(), None);
    for part in parts {
        assert!(problem.is_none(), "a problem is the last part");
        match part {
            Ok(part) => read.push(part.to_vec()),
            Err(why) => problem = Some(why.detail().to_owned()),
        }
    }
    (read, problem)
}

#[test]
fn a_stream_gives_what_has_come() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut encoded = Vec::new();
    for line in [&b"1\n"[..], b"2\n", b"3\n"] {
        encoder.write_all(line).unwrap();
        encoder.flush().unwrap();
        encoded.push(std::mem::take(encoder.get_mut()));
    }
    let end = encoder.finish().unwrap();
    let parts: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).chain([&end[..]]).collect();
    let lines = [b"1\n".to_vec(), b"2\n".to_vec(), b"3\n".to_vec()];
    assert_eq!(parts_of(Coding::Gzip, &parts), (lines.to_vec(), None));
    // What has come counts, also when the rest does not come.
    let why = "The body is not gzip: it ends too early.".to_owned();
    assert_eq!(parts_of(Coding::Gzip, &parts[..3]), (lines.to_vec(), Some(why)));
    let corrupt = [parts[0], &[0xff; 20]];
    let (read, problem) = parts_of(Coding::Gzip, &corrupt);
    assert_eq!((read.concat(), problem.is_some()), (lines[0].clone(), true));
    assert_eq!(parts_of(Coding::Gzip, &[]), (vec![], None));
    assert_eq!(parts_of(Coding::Gzip, &[b""]), (vec![], None));
}

#[test]
fn parts_of_a_stream_are_short() {
    let zeros = vec![0; 16 * MIB];
    for (coding, encode) in [CHECKED[0], CHECKED[1], ENCODERS[3]] {
        let encoded = bytes::Bytes::from(encode(&zeros));
        let mut parts = Box::pin(decoded_parts(stream::iter([Ok(encoded)]), coding));
        let mut length = 0;
        let measured = allocation_counter::measure(|| {
            while let Some(part) = now(parts.next()) {
                let part = part.unwrap();
                assert!(part.len() <= 64 * 1024, "{}", part.len());
                length += part.len();
            }
        });
        assert_eq!(length, zeros.len(), "{coding:?}");
        assert!(measured.bytes_max < DECODER_BYTES_MAX as u64, "{coding:?}: {measured:?}");
    }
}
