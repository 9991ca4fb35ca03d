//! Who may vouch for a bundle's code, as both programs see it.
#![cfg(unix)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use trit_format::container::Header;
use trit_format::trust::file_name;
use trit_tests::workbench::{Ran, fixture, run, trit_run, tritc};

fn with(mut command: Command, trusted: &Path) -> Ran {
    command.env("TRIT_TRUST_DIR", trusted);
    run(command)
}

/// Another folder than the one that is meant would be looked into, depending on where the program is started.
#[test]
fn a_relative_folder_of_records_is_refused_by_both_programs() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("a.trit");
    let name = bundle.to_str().unwrap();
    let checkpoint = fixture("bitnet-online");
    for relative in ["trusted", "../trusted", ""] {
        let relative = Path::new(relative);
        let args = ["compile", "-o", name, checkpoint.to_str().unwrap()];
        with(tritc(&args), relative).fails(2, &["TRIT_TRUST_DIR", "absolute"]);
        assert!(!bundle.exists(), "before anything is written");
    }
    with(tritc(&["compile", "-o", name, checkpoint.to_str().unwrap()]), &folder.path().join("trusted")).ok();
    let relative = Path::new("trusted");
    with(tritc(&["inspect", name]), relative).fails(2, &["TRIT_TRUST_DIR", "absolute"]);
    for more in [&[][..], &["--trust"], &["--kernels", "jit"]] {
        let args = [&[name, "--ids", "1", "-n", "1"], more].concat();
        with(trit_run(&args), relative).fails(2, &["TRIT_TRUST_DIR", "absolute"]);
    }
}

#[test]
fn records_count_only_where_nobody_else_can_write() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("trusted");
    let bundle = folder.path().join("a.trit");
    let name = bundle.to_str().unwrap();
    let checkpoint = fixture("bitnet-online");
    let compile = || with(tritc(&["compile", "-o", name, checkpoint.to_str().unwrap()]), &trusted);
    let embedded = || with(trit_run(&[name, "--ids", "1", "-n", "1", "--kernels", "embedded"]), &trusted);
    compile().ok();
    embedded().ok();

    std::fs::set_permissions(&trusted, std::fs::Permissions::from_mode(0o777)).unwrap();
    let remedy = format!("chmod go-w {}", trusted.display());
    embedded().fails(5, &[&remedy, "--trust"]);
    let auto = with(trit_run(&[name, "--ids", "1", "-n", "1", "--verbose"]), &trusted);
    assert!(
        auto.code == Some(0) && !auto.err.contains("embedded") && auto.err.contains(&remedy),
        "{}",
        auto.err
    );
    let seen = with(tritc(&["inspect", name, "--json"]), &trusted).json();
    assert_eq!(seen["trusted"], false);
    assert!(seen["trust_problem"].as_str().unwrap().contains(&remedy), "{seen}");
    let compiled = compile();
    assert!(compiled.code == Some(0) && compiled.err.contains(&remedy), "{}", compiled.err);
    std::fs::set_permissions(&trusted, std::fs::Permissions::from_mode(0o755)).unwrap();
    embedded().ok();

    let bytes = std::fs::read(&bundle).unwrap();
    let record = trusted.join(file_name(&Header::parse(&bytes).unwrap().encode()));
    std::fs::rename(&record, folder.path().join("elsewhere")).unwrap();
    embedded().fails(5, &["not compiled by this user"]);
    symlink(folder.path().join("elsewhere"), &record).unwrap();
    embedded().fails(5, &["no regular file"]);
}
