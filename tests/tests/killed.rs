//! Commands that write files are killed after every system call that they make. What they were to write is then whole or not
//! there, what it was to replace is as it was or whole, and the next run leaves nothing beside it.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::Command;
use trit_tests::traced::{Then, follow};
use trit_tests::workbench::{fixture, run, scratch, tritc};

/// Runs a command and kills it when it has made `calls` system calls, counting those of all its threads. Whether it came to
/// its end before; `None` where the system does not allow a process to be followed.
fn killed_after(what: &str, program: &Command, calls: usize) -> Option<bool> {
    // Stops come where a call begins and where it ends.
    let mut seen = 0;
    let ended = follow(program, what, |_| {
        seen += 1;
        if seen > 2 * calls { Then::Kill } else { Then::Go }
    })?;
    assert!(matches!(ended.code, None | Some(0)), "{program:?}: {}", ended.err);
    Some(ended.code.is_some())
}

/// Names in a folder that do not end as temporary files do.
fn finished(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.ends_with(".part")).collect();
    names.sort();
    names
}

fn check(what: &str, command: impl Fn(&Path) -> Command, prepare: impl Fn(&Path), look: impl Fn(&Path)) {
    let mut calls = 0;
    loop {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let Some(ended) = killed_after(what, &command(folder.path()), calls) else { return };
        look(folder.path());
        if ended {
            break;
        }
        // Once more, now to its end.
        let again = run(command(folder.path()));
        assert!(
            again.code == Some(0) || again.err.contains("is there already"),
            "{what} {calls}: {}",
            again.err
        );
        look(folder.path());
        let all = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(all, finished(folder.path()).len(), "{what} {calls}: something is left beside it");
        calls += 1;
    }
    assert!(calls > 50, "{what}: only {calls} calls");
}

#[test]
fn nothing_is_half_written_wherever_a_command_is_killed() {
    let checkpoint = fixture("llama-trilm");
    let whole = scratch().join("killed.trit");
    let compile = |out: &Path| {
        tritc(&["compile", checkpoint.to_str().unwrap(), "-t", "1", "-o", out.to_str().unwrap()])
    };
    run(compile(&whole)).ok();
    let bytes = fs::read(&whole).unwrap();
    let other = scratch().join("killed-other.trit");
    let args = ["retarget", whole.to_str().unwrap(), "--target", "portable", "-o", other.to_str().unwrap()];
    run(tritc(&args)).ok();
    let others = fs::read(&other).unwrap();
    assert_ne!(bytes, others);

    check(
        "compile",
        |folder| compile(&folder.join("m.trit")),
        |_| {},
        |folder| {
            if let Ok(found) = fs::read(folder.join("m.trit")) {
                assert!(found == bytes);
            }
        },
    );
    check(
        "retarget in place",
        |folder| tritc(&["retarget", folder.join("m.trit").to_str().unwrap(), "--target", "portable"]),
        |folder| fs::write(folder.join("m.trit"), &bytes).unwrap(),
        |folder| {
            let found = fs::read(folder.join("m.trit")).unwrap();
            assert!(found == bytes || found == others);
        },
    );
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("key");
    run(tritc(&["keygen", key.to_str().unwrap()])).ok();
    check(
        "sign",
        |folder| tritc(&["sign", folder.join("m.trit").to_str().unwrap(), "--key", key.to_str().unwrap()]),
        |folder| fs::write(folder.join("m.trit"), &bytes).unwrap(),
        |folder| {
            assert!(fs::read(folder.join("m.trit")).unwrap() == bytes);
            if let Ok(found) = fs::read(folder.join("m.trit.sig")) {
                trit_format::signature::Signature::parse(&found).unwrap();
            }
        },
    );
    check(
        "keygen",
        |folder| tritc(&["keygen", folder.join("key").to_str().unwrap()]),
        |_| {},
        |folder| {
            if let Ok(found) = fs::read(folder.join("key.pub")) {
                trit_format::signature::PublicKey::from_pem(&found).unwrap();
                // Never a public key whose private one was lost.
                assert!(fs::read_to_string(folder.join("key")).unwrap().contains("END PRIVATE KEY"));
            }
        },
    );
}
