//! Who may vouch for a bundle's code: records of this user, in a folder that nobody else can write.
#![cfg(unix)]

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use trit_format::trust::{Records, TrustError};

const NAME: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn asked(folder: &Path) -> Result<bool, TrustError> {
    Records::in_folder(folder.to_owned()).contains(NAME)
}

#[test]
fn a_record_that_was_made_is_found() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("a/trusted");
    assert!(!asked(&folder).unwrap(), "where there is no folder, nothing is trusted");
    let records = Records::in_folder(folder.clone());
    assert_eq!(records.add(NAME).unwrap(), folder.join(NAME));
    assert!(asked(&folder).unwrap());
    assert!(!records.contains("another").unwrap());
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    // Again is no error.
    records.add(NAME).unwrap();
}

#[test]
fn a_folder_that_others_can_write_does_not_count() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("trusted");
    Records::in_folder(folder.clone()).add(NAME).unwrap();
    for open in [0o770, 0o707, 0o777, 0o1777] {
        mode(&folder, open);
        for error in [asked(&folder).unwrap_err(), Records::in_folder(folder.clone()).add(NAME).unwrap_err()]
        {
            let text = error.to_string();
            assert!(text.contains(&format!("chmod go-w {}", folder.display())), "{text}");
        }
    }
    for closed in [0o700, 0o755, 0o500] {
        mode(&folder, closed);
        assert!(asked(&folder).unwrap(), "{closed:o}");
    }
    // Everybody could put another folder in its place; not so with the sticky bit, nor where a group may write.
    for (above, counts) in [(0o777, false), (0o1777, true), (0o775, true)] {
        mode(home.path(), above);
        match asked(&folder) {
            Ok(found) => assert!(found && counts, "{above:o}"),
            Err(error) => {
                assert!(!counts, "{error}");
                assert!(
                    error.to_string().contains(&format!("chmod o-w {}", home.path().display())),
                    "{error}"
                );
            }
        }
    }
    mode(home.path(), 0o700);
}

#[test]
fn only_a_regular_file_is_a_record() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("trusted");
    std::fs::create_dir(&folder).unwrap();
    mode(&folder, 0o700);
    let record = folder.join(NAME);
    std::fs::write(home.path().join("real"), "").unwrap();
    symlink(home.path().join("real"), &record).unwrap();
    assert!(matches!(asked(&folder), Err(TrustError::NoFile(path)) if path == record));
    Records::in_folder(folder.clone()).add(NAME).unwrap_err();
    std::fs::remove_file(&record).unwrap();
    std::fs::create_dir(&record).unwrap();
    assert!(matches!(asked(&folder), Err(TrustError::NoFile(_))));
    // Something else where the folder should be.
    std::fs::remove_dir(&record).unwrap();
    assert!(matches!(asked(&home.path().join("real")), Err(TrustError::Io { .. })));
    // A link to a folder of one's own is as good as the folder.
    Records::in_folder(folder.clone()).add(NAME).unwrap();
    symlink(&folder, home.path().join("link")).unwrap();
    assert!(asked(&home.path().join("link")).unwrap());
}

#[test]
fn what_belongs_to_others_does_not_count() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("trusted");
    Records::in_folder(folder.clone()).add(NAME).unwrap();
    let record = folder.join(NAME);
    if chown(&record, Some(54_321), None).is_err() {
        // Not `eprintln!`, which the test runner keeps to itself while a test passes.
        let _ =
            writeln!(std::io::stderr(), "NOT RUN: records of other users (only root can give files away)");
        return;
    }
    assert!(matches!(asked(&folder), Err(TrustError::Owner { owner: 54_321, .. })));
    chown(&record, Some(0), None).unwrap();
    assert!(asked(&folder).unwrap(), "the administrator's records count");
    chown(&folder, Some(54_321), None).unwrap();
    let error = asked(&folder).unwrap_err();
    assert!(error.to_string().contains("54321") && error.to_string().contains("TRIT_TRUST_DIR"), "{error}");
}
