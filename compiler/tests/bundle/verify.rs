//! Damage and foreign code are found.

use crate::contents::compiled;
use crate::synthetic;
use std::fs;
use trit_format::container::{Digest, Header, SectionKind};
use trit_format::manifest::Manifest;
use trit_format::target::Target;
use tritc::CompileError;
use tritc::bundle::Bundle;
use tritc::inspect::disasm::disasm;
use tritc::inspect::verify::verify;

pub fn problem(result: Result<impl Sized, CompileError>) -> String {
    match result {
        Err(error @ CompileError::Invalid { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn a_changed_byte_in_any_section_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = compiled(&synthetic::model(), folder.path(), &[Target::X86_64V2]);
    verify(&bundle, true).unwrap();
    let changed = folder.path().join("changed.trit");
    for section in &bundle.header().sections {
        let mut bytes = bundle.bytes().to_vec();
        bytes[section.range().start + section.len as usize / 2] ^= 1;
        fs::write(&changed, bytes).unwrap();
        let found = problem(Bundle::open(&changed).and_then(|b| verify(&b, false)));
        assert!(found.contains(&section.kind.to_string()) && found.contains("digest"), "{found}");
    }
}

/// The bundle with other code, whose digests are all right.
fn with_code(bundle: &Bundle, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let target = Target::X86_64V2;
    let mut code = bundle.section(SectionKind::Code(target)).to_vec();
    change(&mut code);
    let mut manifest: Manifest = bundle.manifest().clone();
    for kernel in &mut manifest.kernels {
        kernel.digest = Digest::of(&code[kernel.offset as usize..][..kernel.len as usize]);
    }
    with_sections(bundle, |kind, content| match kind {
        SectionKind::Code(_) => *content = code.clone(),
        SectionKind::Manifest => *content = manifest.encode().unwrap(),
        _ => {}
    })
}

/// The bundle with sections changed, their digests right.
pub fn with_sections(bundle: &Bundle, change: impl Fn(SectionKind, &mut Vec<u8>)) -> Vec<u8> {
    let (mut bytes, mut sections) = (Vec::new(), Vec::new());
    bytes.resize(Header::bytes(bundle.header().sections.len()) as usize, 0);
    for section in &bundle.header().sections {
        let mut content = bundle.section(section.kind).to_vec();
        change(section.kind, &mut content);
        bytes.resize(bytes.len().next_multiple_of(section.kind.alignment() as usize), 0);
        let mut section = *section;
        (section.offset, section.len) = (bytes.len() as u64, content.len() as u64);
        section.digest = Digest::of(&content);
        bytes.extend_from_slice(&content);
        sections.push(section);
    }
    let header = Header { sections }.encode();
    bytes[..header.len()].copy_from_slice(&header);
    bytes
}

type Change = Box<dyn FnOnce(&mut Vec<u8>)>;

#[test]
fn rebuilding_finds_code_that_is_not_ours_although_its_digests_match() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = compiled(&synthetic::model(), folder.path(), &[Target::X86_64V2]);
    let kernel = &bundle.manifest().kernels[1];
    let inside = kernel.offset as usize + 3;
    let before = kernel.offset as usize - 1;
    let changes: [(&str, Change); 3] = [
        ("is not the code", Box::new(move |code| code[inside] ^= 1)),
        ("holds more", Box::new(move |code| code[before] = 0xc3)),
        ("holds more", Box::new(|code| code.extend_from_slice(&[0x90, 0xc3]))),
    ];
    assert_eq!(bundle.section(SectionKind::Code(Target::X86_64V2))[before], 0, "there is a gap to hide in");
    let other = folder.path().join("other.trit");
    for (words, change) in changes {
        fs::write(&other, with_code(&bundle, change)).unwrap();
        let opened = Bundle::open(&other).unwrap();
        verify(&opened, false).unwrap();
        let found = problem(verify(&opened, true));
        assert!(found.contains(words), "{found}");
    }
    fs::write(&other, with_code(&bundle, |_| ())).unwrap();
    verify(&Bundle::open(&other).unwrap(), true).unwrap();
}

#[test]
fn disassembly_names_its_kernels_and_what_there_is_instead() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = compiled(&synthetic::model(), folder.path(), &[Target::X86_64V2, Target::Aarch64]);
    let all = disasm(&bundle, None, None).unwrap();
    for kernel in &bundle.manifest().kernels {
        assert!(all.contains(&format!("; {} for {}", kernel.spec, kernel.target)));
    }
    let some = disasm(&bundle, Some(Target::X86_64V2), Some("k36_")).unwrap();
    assert!(some.contains("pmaddubsw") && !some.contains("for aarch64") && !some.contains("k90_"), "{some}");
    let error = disasm(&bundle, Some(Target::X86_64V3), None).unwrap_err();
    assert!(matches!(error, CompileError::NoSuchKernel { .. }));
    assert!(error.to_string().contains(&bundle.manifest().kernels[0].spec.to_string()), "{error}");
}
