//! A bundle that this version of the format wrote, signed with a key that was thrown away. Programs of later versions read it and
//! give the same results, or refuse it by its version: they never read something else in it.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use trit_format::container::{MAJOR, MINOR};
use trit_format::signature::PublicKey;
use trit_runtime::{KernelChoice, LoadOptions, Model, RuntimeError, TrustPolicy, Trusted, Tuning};
use trit_tests::workbench::{fixture, run, trit_run, tritc};

/// The version that the bundle in each of these folders has.
const KEPT: [(&str, (u16, u16)); 1] = [("format-1.1", (1, 1))];

fn folder(name: &str) -> PathBuf {
    fixture("kept").join(name)
}

#[test]
fn kept_bundles_are_read_or_refused_by_their_version() {
    for (name, version) in KEPT {
        let bundle = folder(name).join("trilm.trit");
        let key = PublicKey::from_pem(&fs::read(folder(name).join("key.pub")).unwrap()).unwrap();
        for kernels in [KernelChoice::Portable, KernelChoice::Auto, KernelChoice::Jit] {
            let trust = TrustPolicy::signed_by(vec![key]);
            let options = LoadOptions { kernels, trust, tuning: Tuning::Off, ..LoadOptions::default() };
            match Model::load(&bundle, &options) {
                Ok(model) => {
                    assert_eq!(version, (MAJOR, MINOR));
                    assert!(matches!(model.trust(), Ok(Trusted::Signed { .. })));
                }
                Err(RuntimeError::Format { source, .. }) => {
                    assert_ne!(version, (MAJOR, MINOR), "{source}");
                    assert!(source.to_string().contains("format version"), "{source}");
                }
                Err(other) => panic!("{name}: {other}"),
            }
        }
    }
}

/// Where the version is this one, all of it works: the kernels in it, its known results, its signature, and what is made of it.
#[test]
fn the_kept_bundle_of_this_version_gives_what_it_gave() {
    let here = KEPT.iter().filter(|(_, version)| *version == (MAJOR, MINOR));
    let names: Vec<&str> = here.map(|(name, _)| *name).collect();
    assert_eq!(names.len(), 1, "one bundle of each version is kept: make it as its README.md says");
    let at = |file: &str| folder(names[0]).join(file).to_str().unwrap().to_owned();
    // In a checkout others may be allowed to write, and then a key does not count.
    let own = tempfile::tempdir().unwrap();
    let key = own.path().join("key.pub");
    fs::write(&key, fs::read(at("key.pub")).unwrap()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let key = key.to_str().unwrap();
    run(tritc(&["verify", &at("trilm.trit"), "--key", key])).ok();
    let ids = ["--ids", "1,2,3,4,5", "-n", "16", "--temp", "0", "--key", key];
    for kernels in ["auto", "portable", "jit"] {
        run(trit_run(&["selftest", &at("trilm.trit"), "--kernels", kernels, "--key", key])).ok();
        let bundle = at("trilm.trit");
        let ran =
            run(trit_run(&[&[bundle.as_str(), "--json", "--kernels", kernels], &ids[..]].concat())).json();
        let expected: serde_json::Value =
            serde_json::from_slice(&fs::read(Path::new(&at("ids.json"))).unwrap()).unwrap();
        assert_eq!(ran["ids"], expected, "{kernels}");
    }
}
