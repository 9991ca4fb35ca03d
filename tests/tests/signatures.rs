//! Signatures: who signed a bundle, and what runs where a signature, a header or code was changed.
#![cfg(unix)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use trit_format::container::{Header, SectionKind};
use trit_format::signature::PublicKey;
use trit_runtime::{LoadOptions, Model, RuntimeError, TrustPolicy, Tuning};
use trit_tests::workbench::{Ran, compile, fixture, run, trit_run, tritc};

/// A folder with a bundle and a key, whose signature is beside the bundle.
struct Signed {
    folder: tempfile::TempDir,
}

impl Signed {
    fn new() -> Signed {
        let signed = Signed { folder: tempfile::tempdir().unwrap() };
        fs::copy(compile(&fixture("llama-trilm"), "signatures"), signed.at("m.trit")).unwrap();
        run(tritc(&["keygen", signed.name("key").as_str()])).ok();
        signed.tritc(&["sign", "m.trit", "--key", "key"]).ok();
        signed
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().to_owned()
    }

    fn tritc(&self, args: &[&str]) -> Ran {
        let mut command = tritc(args);
        command.current_dir(self.folder.path()).env("TRIT_TRUST_DIR", self.at("trusted"));
        run(command)
    }

    fn trit_run(&self, args: &[&str]) -> Ran {
        let mut command = trit_run(&[args, &["--ids", "1,2", "-n", "1", "--verbose"]].concat());
        command.current_dir(self.folder.path()).env("TRIT_TRUST_DIR", self.at("trusted"));
        run(command)
    }
}

#[test]
fn a_signed_bundle_runs_with_its_key_and_no_other() {
    let signed = Signed::new();
    let public = PublicKey::from_pem(&fs::read(signed.at("key.pub")).unwrap()).unwrap().to_string();
    assert_eq!(fs::metadata(signed.at("key")).unwrap().permissions().mode() & 0o777, 0o600);

    assert!(signed.tritc(&["verify", "m.trit", "--key", "key.pub"]).ok().contains(&public));
    let ran = signed.trit_run(&["m.trit", "--key", "key.pub"]);
    assert!(ran.err.contains("kernels: embedded"), "{}", ran.err);
    ran.ok();
    // Nobody said that this key is trusted: kernels are generated, and who signed is said.
    let ran = signed.trit_run(&["m.trit"]);
    assert!(ran.err.contains("was not run") && ran.err.contains(&public), "{}", ran.err);
    ran.ok();
    assert!(signed.tritc(&["inspect", "m.trit"]).ok().contains("not among the trusted keys"));

    signed.tritc(&["keygen", "other"]).ok();
    signed.tritc(&["verify", "m.trit", "--key", "other.pub"]).fails(5, &["is signed by", &public]);
    signed.trit_run(&["m.trit", "--key", "other.pub"]).fails(5, &["not trusted", &public, "--key"]);
    let either = signed.trit_run(&["m.trit", "--key", "other.pub", "--key", "key.pub"]);
    assert!(either.err.contains("kernels: embedded"), "{}", either.err);
    signed.trit_run(&["m.trit", "--key", "key.pub", "--trust"]).fails(2, &["--trust"]);

    // A key of the folder has a name.
    fs::create_dir_all(signed.at("trusted/keys")).unwrap();
    for folder in ["trusted", "trusted/keys"] {
        fs::set_permissions(signed.at(folder), Permissions::from_mode(0o700)).unwrap();
    }
    fs::copy(signed.at("key.pub"), signed.at("trusted/keys/vendor.pub")).unwrap();
    let ran = signed.trit_run(&["m.trit"]);
    assert!(ran.err.contains("kernels: embedded"), "{}", ran.err);
    let seen = signed.tritc(&["inspect", "m.trit", "--json"]).json();
    assert_eq!(seen["signature"]["trusted_as"], "vendor");
    assert_eq!(seen["signature"]["key"], public.as_str());

    fs::remove_file(signed.at("m.trit.sig")).unwrap();
    signed.trit_run(&["m.trit", "--key", "key.pub"]).fails(5, &["is not signed", ".sig"]);
    signed.tritc(&["verify", "m.trit", "--key", "key.pub"]).fails(5, &["m.trit.sig"]);
}

#[test]
fn keys_are_refused_where_others_reach_them_and_never_replaced_or_printed() {
    let signed = Signed::new();
    let secret = fs::read_to_string(signed.at("key")).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    let mode = |name: &str, mode| fs::set_permissions(signed.at(name), Permissions::from_mode(mode)).unwrap();
    let mut said = Vec::new();
    let mut fails = |ran: Ran, code, words: &[&str]| {
        ran.fails(code, words);
        said.push(ran.out + &ran.err);
    };
    fails(signed.tritc(&["keygen", "key"]), 2, &["key.pub: is there already"]);
    fails(signed.tritc(&["keygen", "no/key"]), 2, &["no/key: cannot be written: there is no folder no"]);
    mode("key", 0o640);
    fails(signed.tritc(&["sign", "m.trit", "--key", "key"]), 3, &["chmod 600 key"]);
    mode("key", 0o602);
    fails(signed.tritc(&["sign", "m.trit", "--key", "key"]), 3, &["chmod go-w key"]);
    mode("key", 0o600);
    mode("key.pub", 0o666);
    fails(signed.tritc(&["verify", "m.trit", "--key", "key.pub"]), 3, &["chmod go-w key.pub"]);
    fails(signed.trit_run(&["m.trit", "--key", "key.pub"]), 5, &["chmod go-w key.pub"]);
    mode("key.pub", 0o644);
    for (key, words) in [
        ("key", "the public one is in the file that ends in .pub"),
        ("m.trit", "key"),
        ("nothing", "nothing"),
        (".", "key"),
    ] {
        fails(signed.trit_run(&["m.trit", "--key", key]), 3, &[words]);
    }
    fails(signed.tritc(&["sign", "m.trit", "--key", "key.pub"]), 3, &["is a public key"]);
    fails(signed.tritc(&["sign", "m.trit", "--key", "gone"]), 3, &["gone: no such file"]);
    fs::write(signed.at("bad"), secret).unwrap();
    mode("bad", 0o600);
    fails(signed.tritc(&["sign", "m.trit", "--key", "bad"]), 3, &["bad: is no Ed25519 private key"]);

    // What stands where the signature is to be is not replaced by one.
    fs::write(signed.at("m.trit.sig"), "years of work").unwrap();
    fails(signed.tritc(&["sign", "m.trit", "--key", "key"]), 2, &["is no signature"]);
    assert_eq!(fs::read(signed.at("m.trit.sig")).unwrap(), b"years of work");
    assert!(said.iter().all(|text: &String| !text.contains(secret)));
    // Where one half is lost, the public one comes back.
    let public = fs::read(signed.at("key.pub")).unwrap();
    fs::remove_file(signed.at("key.pub")).unwrap();
    signed.tritc(&["keygen", "key"]).ok();
    assert_eq!(fs::read(signed.at("key.pub")).unwrap(), public);
}

/// The places where a changed bit must be seen: header and section table, code, and the signature.
fn places(bundle: &[u8], signature: usize) -> Vec<(bool, std::ops::Range<usize>)> {
    let header = Header::parse(bundle).unwrap();
    let code = header.sections.iter().filter(|s| matches!(s.kind, SectionKind::Code(_))).map(|s| s.range());
    let mut places = vec![(true, 0..signature), (false, 0..Header::bytes(header.sections.len()) as usize)];
    places.extend(code.map(|range| (false, range)));
    places
}

#[test]
fn no_code_runs_after_any_of_ten_thousand_flipped_bits() {
    let signed = Signed::new();
    let (bundle, signature) =
        (fs::read(signed.at("m.trit")).unwrap(), fs::read(signed.at("m.trit.sig")).unwrap());
    let key = PublicKey::from_pem(&fs::read(signed.at("key.pub")).unwrap()).unwrap();
    let options = LoadOptions {
        trust: TrustPolicy::signed_by(vec![key]),
        tuning: Tuning::Off,
        ..LoadOptions::default()
    };
    Model::load(&signed.at("m.trit"), &options).expect("it is whole");

    let places = places(&bundle, signature.len());
    let (flips, mut seed) = (10_000, 0x9e37_79b9_7f4a_7c15u64);
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let path = signed.at("flipped.trit");
    fs::write(&path, &bundle).unwrap();
    let beside = signed.at("flipped.trit.sig");
    fs::write(&beside, &signature).unwrap();
    let write = |path: &Path, at: usize, byte: u8| {
        use std::os::unix::fs::FileExt;
        fs::File::options().write(true).open(path).unwrap().write_all_at(&[byte], at as u64).unwrap();
    };
    let mut refused = [0, 0];
    for flip in 0..flips {
        let (is_signature, range) = &places[flip % places.len()];
        let (at, bit) = (range.start + random(range.len()), random(8));
        let (file, bytes) = if *is_signature { (&beside, &signature) } else { (&path, &bundle) };
        write(file, at, bytes[at] ^ 1 << bit);
        match Model::load(&path, &options) {
            Err(RuntimeError::Untrusted { .. }) => refused[0] += 1,
            Err(RuntimeError::Format { .. } | RuntimeError::Io { .. }) => refused[1] += 1,
            Err(other) => panic!("bit {bit} at {at} of {file:?}: {other}"),
            Ok(_) => panic!("bit {bit} at {at} of {file:?} was not seen"),
        }
        // What the command gives, for some of them.
        if flip % 500 < places.len() {
            let ran = signed.trit_run(&["flipped.trit", "--key", "key.pub"]);
            assert!(matches!(ran.code, Some(3 | 5)) && !ran.err.contains("embedded"), "{}", ran.err);
        }
        write(file, at, bytes[at]);
    }
    assert_eq!(refused[0] + refused[1], flips);
    assert!(refused.iter().all(|&count| count > 0), "{refused:?}");
    Model::load(&path, &options).expect("every bit was put back");
}
