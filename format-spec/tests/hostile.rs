//! One test for each way in which bytes can fail to be a bundle.

mod bundle;

use bundle::{assemble, file, manifest, sections};
use trit_format::FormatError;
use trit_format::container::{Header, MAX_SECTIONS, SectionKind};
use trit_format::manifest::{MAX_BYTES, Manifest};
use trit_format::target::Target;

/// The error of parsing the small bundle after `change`.
fn parse(change: impl FnOnce(&mut Vec<u8>)) -> FormatError {
    let mut bytes = file();
    change(&mut bytes);
    Header::parse(&bytes).unwrap_err()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Offset of a field in entry `index` of the section table.
fn entry(index: usize, field: usize) -> usize {
    64 * (index + 1) + field
}

#[test]
fn the_bundle_that_is_damaged_below_is_valid() {
    let bytes = file();
    let header = Header::parse(&bytes).unwrap();
    assert_eq!(header.encode(), bytes[..64 * 8]);
    for section in &header.sections {
        header.verify(&bytes, section.kind).unwrap();
    }
    let manifest_bytes = &bytes[header.section(SectionKind::Manifest).unwrap().range()];
    let decoded = Manifest::decode(manifest_bytes).unwrap();
    assert_eq!(decoded, manifest());
    decoded.validate(&header).unwrap();
}

#[test]
fn too_short() {
    assert_eq!(Header::parse(&[]), Err(FormatError::TooShort { len: 0 }));
    assert_eq!(parse(|b| b.truncate(63)), FormatError::TooShort { len: 63 });
}

#[test]
fn magic() {
    // What a transfer that "fixes" line ends does.
    assert_eq!(
        parse(|b| b.retain(|&byte| byte != b'\r')),
        FormatError::Magic { found: *b"\x89TRIT\n\x1a\x01" }
    );
}

#[test]
fn version() {
    assert_eq!(parse(|b| b[8] = 2), FormatError::Version { major: 2, minor: 1 });
    assert_eq!(parse(|b| b[8] = 0), FormatError::Version { major: 0, minor: 1 });
    // Records are others, and would be misread.
    for minor in [0, 2, 9] {
        let error = parse(|b| b[10] = minor);
        assert_eq!(error, FormatError::Version { major: 1, minor: minor.into() });
        assert!(error.to_string().contains("compile the model again"), "{error}");
    }
}

#[test]
fn feature() {
    assert_eq!(parse(|b| b[16 + 5] = 0b1100), FormatError::Feature { bit: 42 });
}

#[test]
fn length() {
    let whole = file().len() as u64;
    assert_eq!(parse(|b| b.truncate(b.len() - 1)), FormatError::Length { expected: whole, found: whole - 1 });
    assert_eq!(parse(|b| b.push(0)), FormatError::Length { expected: whole, found: whole + 1 });
    // The length field agrees with the file, the last section does not reach it.
    let appended = parse(|b| {
        b.push(0);
        put(b, 24, &(whole + 1).to_le_bytes());
    });
    assert_eq!(appended, FormatError::Length { expected: whole, found: whole + 1 });
}

#[test]
fn padding() {
    assert_eq!(parse(|b| b[40] = 1), FormatError::Padding { offset: 40 });
    assert_eq!(parse(|b| b[entry(2, 31)] = 1), FormatError::Padding { offset: entry(2, 31) as u64 });
    assert_eq!(parse(|b| b[65535] = 1), FormatError::Padding { offset: 65535 });
}

#[test]
fn section_count() {
    for count in [0, MAX_SECTIONS + 1, u32::MAX] {
        assert_eq!(parse(|b| put(b, 12, &count.to_le_bytes())), FormatError::SectionCount { count });
    }
    // A table that the file is too short for.
    let bare = |b: &mut Vec<u8>| {
        b.truncate(127);
        put(b, 24, &127u64.to_le_bytes());
        put(b, 12, &1u32.to_le_bytes());
    };
    assert_eq!(parse(bare), FormatError::SectionCount { count: 1 });
}

#[test]
fn section_kind() {
    for kind in [0u32, 8, u32::MAX] {
        assert_eq!(parse(|b| put(b, entry(1, 0), &kind.to_le_bytes())), FormatError::SectionKind { kind });
    }
    // A target where there is none, and one that does not exist.
    assert_eq!(parse(|b| b[entry(1, 4)] = 1), FormatError::SectionKind { kind: 2 });
    let index = Target::ALL.len() as u32;
    let refused = parse(|b| b[entry(3, 4)] = index as u8);
    assert_eq!(refused, FormatError::CodeTarget { index });
    let words =
        format!("code for target {index}, this program knows 0 to {}: it was made by a newer", index - 1);
    assert!(refused.to_string().contains(&words), "{refused}");
}

#[test]
fn section() {
    let problem = |change: &dyn Fn(&mut Vec<u8>)| match parse(change) {
        FormatError::Section { index, problem, .. } => (index, problem),
        other => panic!("{other}"),
    };
    let (misplaced, past) = (
        "does not start at the next aligned offset after the one before",
        "reaches past the end of the file",
    );
    let offset = |index, value: u64| move |b: &mut Vec<u8>| put(b, entry(index, 8), &value.to_le_bytes());
    let len = |index, value: u64| move |b: &mut Vec<u8>| put(b, entry(index, 16), &value.to_le_bytes());
    assert_eq!(problem(&|b| b[entry(4, 4)] = b[entry(3, 4)]), (4, "is there twice"));
    assert_eq!(problem(&offset(0, 0)), (0, misplaced), "over the header");
    assert_eq!(problem(&offset(1, 65536 - 64)), (1, misplaced), "misaligned");
    assert_eq!(problem(&offset(2, 65536)), (2, misplaced), "overlaps the one before");
    assert_eq!(problem(&offset(2, u64::MAX - 65535)), (2, misplaced), "a hole");
    assert_eq!(problem(&len(1, 1 << 20)), (1, past));
    assert_eq!(problem(&len(1, u64::MAX)), (1, past), "offset + length overflows");
    assert_eq!(problem(&len(6, 1 << 20)), (6, past));
}

#[test]
fn missing() {
    let mut all = vec![(SectionKind::Manifest, manifest().encode().unwrap())];
    all.extend(sections(&manifest()));
    for kind in [SectionKind::Manifest, SectionKind::Weights, SectionKind::Tensors] {
        let rest: Vec<_> = all.iter().filter(|(k, _)| *k != kind).cloned().collect();
        assert_eq!(Header::parse(&assemble(&rest)), Err(FormatError::Missing(kind)));
    }
    let header = Header::parse(&assemble(&all[..3])).unwrap();
    assert_eq!(
        header.verify(&assemble(&all[..3]), SectionKind::Tokenizer),
        Err(FormatError::Missing(SectionKind::Tokenizer))
    );
}

#[test]
fn digest() {
    let bytes = file();
    let header = Header::parse(&bytes).unwrap();
    for section in &header.sections {
        let mut damaged = bytes.clone();
        damaged[section.range().end - 1] ^= 1;
        assert_eq!(Header::parse(&damaged).unwrap(), header);
        assert_eq!(header.verify(&damaged, section.kind), Err(FormatError::Digest(section.kind)));
    }
}

#[test]
fn manifest_bytes() {
    let bytes = manifest().encode().unwrap();
    let refused = |bytes: &[u8], problem: &str| match Manifest::decode(bytes) {
        Err(FormatError::Manifest(message)) => assert!(message.contains(problem), "{message}"),
        other => panic!("{other:?}"),
    };
    for cut in 0..bytes.len() {
        refused(&bytes[..cut], "cannot be decoded");
    }
    refused(&[&bytes[..], &[0]].concat(), "followed by 1 unknown bytes");
    // A string that claims to be longer than any memory.
    refused(&[&u64::MAX.to_le_bytes()[..], &bytes[8..]].concat(), "cannot be decoded");
    // Not UTF-8.
    refused(&[&bytes[..8], &[0xff], &bytes[9..]].concat(), "cannot be decoded");

    let mut large = manifest();
    large.text.chat_template = Some("x".repeat(MAX_BYTES));
    assert!(matches!(large.encode(), Err(FormatError::Manifest(_))));
}

#[test]
fn record() {
    let mut changed = manifest();
    changed.plan.row_bytes = 64;
    let header = Header::parse(&file()).unwrap();
    let error = changed.validate(&header).unwrap_err();
    assert!(matches!(error, FormatError::Record { .. }));
    assert_eq!(error.to_string(), "buffer normed: 64 bytes at 64 reach past row_bytes, 64");
}
