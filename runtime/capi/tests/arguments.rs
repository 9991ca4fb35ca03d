//! Arguments that cannot be, without a bundle: each is an error with words, and nothing is written but what the header says.
//! `tests/c/interface.c` has those of open bundles.

use std::ffi::{CStr, CString, c_char};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::ptr::{null, null_mut};
use trit::trit_status::*;
use trit::*;

/// The status of a call, and what it said.
fn said(call: impl FnOnce(*mut *mut trit_error) -> trit_status) -> (trit_status, String) {
    let mut error = null_mut();
    let status = call(&mut error);
    // SAFETY: the call left null or an error there.
    unsafe {
        assert_eq!(trit_error_status(error), status);
        let words = CStr::from_ptr(trit_error_message(error)).to_str().unwrap().to_owned();
        assert_eq!(words.is_empty(), status == TRIT_OK, "{words}");
        trit_error_free(&mut error);
        assert!(error.is_null());
        (status, words)
    }
}

fn refused(status: trit_status, words: &str, call: impl FnOnce(*mut *mut trit_error) -> trit_status) {
    let (found, all) = said(call);
    assert!(found == status && all.contains(words), "{found:?}: {all}");
}

fn options() -> trit_options {
    let mut options = std::mem::MaybeUninit::uninit();
    // SAFETY: so many bytes may be written, and all are.
    unsafe {
        assert_eq!(trit_options_init(options.as_mut_ptr(), size_of::<trit_options>(), null_mut()), TRIT_OK);
        options.assume_init()
    }
}

#[test]
fn null_is_an_error_everywhere() {
    let model = null::<trit_model>();
    let session = null_mut::<trit_session>();
    let (mut count, mut id) = (7usize, 7u32);
    let mut text: *const c_char = null();
    let handle = "is null: it was not opened, or it was closed";
    // SAFETY: null is what is tried; the other pointers are of living values.
    unsafe {
        let bad = TRIT_INVALID_ARGUMENT;
        refused(bad, "trit_options", |e| trit_options_init(null_mut(), 8, e));
        refused(bad, "trit_generation", |e| trit_generation_init(null_mut(), 8, e));
        let mut opened = null_mut();
        refused(bad, "path", |e| trit_model_open(null(), null(), &mut opened, e));
        refused(bad, "model", |e| trit_model_open(c"x".as_ptr(), null(), null_mut(), e));
        refused(bad, "-1", |e| trit_model_open_fd(-1, 0, 0, null(), &mut opened, e));
        refused(bad, "bytes", |e| trit_model_open_memory(null(), 5, TRIT_BYTES_COPY, null(), &mut opened, e));
        refused(bad, handle, |e| trit_model_describe(model, &mut std::mem::zeroed(), e));
        refused(bad, handle, |e| trit_tokenize(model, null(), 0, 0, null_mut(), 0, &mut count, e));
        assert_eq!(count, 0);
        refused(bad, "null", |e| trit_tokenize(model, null(), 0, 0, null_mut(), 0, null_mut(), e));
        refused(bad, "capacity", |e| trit_tokenize(model, null(), 0, 0, null_mut(), 3, &mut count, e));
        refused(bad, handle, |e| trit_detokenize(model, null(), 0, 0, null_mut(), 0, &mut count, e));
        refused(bad, handle, |e| trit_chat_prompt(model, null(), 0, 0, null_mut(), 0, &mut count, e));
        refused(bad, handle, |e| trit_chat_prompt_json(model, null(), 0, null_mut(), 0, &mut count, e));
        let mut stream = null_mut();
        refused(bad, handle, |e| trit_detokenizer_new(model, null(), 0, &mut stream, e));
        refused(bad, handle, |e| trit_detokenizer_push(null_mut(), 0, &mut text, &mut count, e));
        assert!(*text == 0 && count == 0);
        let mut made = null_mut();
        refused(bad, handle, |e| trit_session_new(model, &mut made, e));
        refused(bad, handle, |e| trit_session_fork(session, 0, &mut made, e));
        refused(bad, handle, |e| trit_session_length(session, &mut count, e));
        refused(bad, handle, |e| trit_session_tokens(session, null_mut(), 0, &mut count, e));
        refused(bad, handle, |e| trit_session_prefill(session, null(), 0, e));
        refused(bad, handle, |e| trit_session_append(session, 0, e));
        refused(bad, handle, |e| trit_session_set(session, null(), 0, null_mut(), e));
        refused(bad, handle, |e| trit_session_truncate(session, 0, e));
        refused(bad, handle, |e| trit_session_logits(session, null_mut(), 0, &mut count, e));
        refused(bad, handle, |e| trit_session_decode(session, null(), None, null_mut(), null_mut(), e));
        let mut sampler = null_mut();
        refused(bad, handle, |e| trit_sampler_new(model, null(), &mut sampler, e));
        refused(bad, handle, |e| trit_sampler_choose(null_mut(), session, null(), 0, &mut id, e));
        assert_eq!(id, TRIT_NO_ID);
        // Nothing is closed, and nobody need listen.
        trit_model_close(null_mut());
        trit_session_abort(session);
        trit_session_resume(session);
        for status in [
            trit_session_close(null_mut(), null_mut()),
            trit_sampler_close(&mut sampler, null_mut()),
            trit_detokenizer_close(&mut stream, null_mut()),
        ] {
            assert_eq!(status, TRIT_OK);
        }
        assert_eq!(trit_session_append(session, 0, null_mut()), TRIT_INVALID_ARGUMENT);
    }
}

/// Whatever bytes a structure has: an error of the options or of the file, which is none.
#[test]
fn options_of_any_bytes_are_read_or_refused() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    let mut files = 0;
    for round in 0..20_000usize {
        // As large as the largest that is read, so that any size there is inside.
        let mut bytes = [0u64; 513];
        let dense = round % 2 == 0;
        // All but the pointer and its count, which nobody can check.
        for at in (1..6).chain(8..11) {
            let any = u64::from_ne_bytes(std::array::from_fn(|_| random()));
            bytes[at] = if dense { any } else { any & 0x1_0000_0003 };
        }
        bytes[0] = match round % 4 {
            0 => u64::from_ne_bytes(std::array::from_fn(|_| random())) | 8192,
            1 => size_of::<trit_options>() as u64,
            _ => (random() as u64) << (round % 5),
        };
        let mut model = null_mut();
        // SAFETY: the memory is as large as any size that is not refused.
        let (status, words) = said(|error| unsafe {
            trit_model_open(c"/no/such/bundle".as_ptr(), bytes.as_ptr().cast(), &mut model, error)
        });
        assert!(model.is_null() && matches!(status, TRIT_INVALID_ARGUMENT | TRIT_IO), "{words}");
        files += usize::from(status == TRIT_IO);
    }
    assert!((1..20_000).contains(&files), "{files} were options");
}

#[test]
fn files_and_memory_that_hold_no_bundle_are_named() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[7; 5000]).unwrap();
    let path = CString::new(file.path().to_str().unwrap()).unwrap();
    let options = options();
    let mut model = null_mut();
    // SAFETY: the pointers are of living values, the descriptor is open.
    unsafe {
        let name = file.path().to_str().unwrap();
        refused(TRIT_INVALID_BUNDLE, name, |e| trit_model_open(path.as_ptr(), &options, &mut model, e));
        refused(TRIT_IO, "no/such", |e| trit_model_open(c"no/such".as_ptr(), &options, &mut model, e));
        refused(TRIT_IO, "directory", |e| trit_model_open(c"/".as_ptr(), null(), &mut model, e));
        let fd = file.as_file().as_raw_fd();
        refused(TRIT_INVALID_BUNDLE, "file descriptor", |e| {
            trit_model_open_fd(fd, 64, 0, &options, &mut model, e)
        });
        for (offset, length) in [(0, 5001), (5001, 1), (u64::MAX, 1), (u64::MAX, u64::MAX)] {
            refused(TRIT_IO, "too few", |e| trit_model_open_fd(fd, offset, length, null(), &mut model, e));
        }
        for length in 0..200 {
            let bytes = [0x7fu8; 200];
            for kind in [TRIT_BYTES_COPY, TRIT_BYTES_BORROW] {
                refused(TRIT_INVALID_BUNDLE, "a bundle in memory", |e| {
                    trit_model_open_memory(bytes.as_ptr().cast(), length, kind, null(), &mut model, e)
                });
            }
        }
    }
    assert!(model.is_null());
}

/// Arrays that no memory holds, and that begin where none of their elements can.
#[test]
fn arrays_that_cannot_be_are_refused() {
    let bytes = [0u8; 64];
    let mut generation = std::mem::MaybeUninit::<trit_generation>::uninit();
    let mut sampler = null_mut();
    // SAFETY: what is refused is not read.
    unsafe {
        let size = size_of::<trit_generation>();
        assert_eq!(trit_generation_init(generation.as_mut_ptr(), size, null_mut()), TRIT_OK);
        let mut generation = generation.assume_init();
        assert!(generation.temperature.is_nan() && generation.max_tokens == 256);
        let mut model = null_mut();
        let odd = bytes.as_ptr().add(1).cast();
        refused(TRIT_INVALID_ARGUMENT, "fit any memory", |e| {
            trit_model_open_memory(odd, usize::MAX, TRIT_BYTES_BORROW, null(), &mut model, e)
        });
        generation.stop_text_count = usize::MAX / 4;
        generation.stop_texts = bytes.as_ptr().cast();
        // The handle is looked at first.
        refused(TRIT_INVALID_ARGUMENT, "model", |e| trit_sampler_new(null(), &generation, &mut sampler, e));
    }
}

/// Files of keys: each that cannot be one, before the bundle is looked for.
#[test]
#[cfg(unix)]
fn keys_that_cannot_be_are_named() {
    use std::os::unix::fs::PermissionsExt;
    // The example of RFC 8410.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                       -----END PUBLIC KEY-----\n";
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        CString::new(path.to_str().unwrap()).unwrap()
    };
    let good = file("good.pub", KEY, 0o644);
    let open = |keys: &[*const c_char], trust: u32| {
        let asked = trit_options { keys: keys.as_ptr(), key_count: keys.len(), trust, ..options() };
        let mut model = null_mut();
        // SAFETY: the pointers are of living values.
        let found = said(|e| unsafe { trit_model_open(c"/no/such/bundle".as_ptr(), &asked, &mut model, e) });
        assert!(model.is_null());
        found
    };
    for (name, text, mode, status, words) in [
        ("no key.pub", "no key", 0o644, TRIT_INVALID_ARGUMENT, "in keys"),
        ("private.pub", "-----BEGIN PRIVATE KEY-----", 0o600, TRIT_INVALID_ARGUMENT, "ends in .pub"),
        ("others.pub", KEY, 0o666, TRIT_UNTRUSTED, "chmod go-w"),
    ] {
        let file = file(name, text, mode);
        let (found, all) = open(&[good.as_ptr(), file.as_ptr()], TRIT_TRUST_BY_RECORD);
        assert!(found == status && all.contains(name) && all.contains(words), "{found:?}: {all}");
    }
    let found = |(status, words): (trit_status, String), wanted: trit_status, part: &str| {
        assert!(status == wanted && words.contains(part), "{status:?}: {words}");
    };
    let absent = CString::new(folder.path().join("absent.pub").to_str().unwrap()).unwrap();
    found(open(&[absent.as_ptr()], TRIT_TRUST_BY_RECORD), TRIT_IO, "absent.pub");
    found(open(&[null()], TRIT_TRUST_BY_RECORD), TRIT_INVALID_ARGUMENT, "keys[0] is null");
    found(open(&[good.as_ptr()], TRIT_TRUST_ALWAYS), TRIT_INVALID_ARGUMENT, "TRIT_TRUST_BY_RECORD");
    found(open(&[good.as_ptr()], TRIT_TRUST_NEVER), TRIT_INVALID_ARGUMENT, "TRIT_TRUST_BY_RECORD");
    // A good key: now the bundle is looked for.
    found(open(&[good.as_ptr()], TRIT_TRUST_BY_RECORD), TRIT_IO, "/no/such/bundle");
    // A program that knows no keys: what stands behind its structure is not read.
    let mut older = options();
    older.size = std::mem::offset_of!(trit_options, keys);
    (older.keys, older.key_count) = (std::ptr::dangling(), usize::MAX);
    let mut model = null_mut();
    // SAFETY: the structure is longer than its size says.
    found(
        said(|e| unsafe { trit_model_open(c"/no/such".as_ptr(), &older, &mut model, e) }),
        TRIT_IO,
        "/no/such",
    );
    older.size = size_of::<trit_options>();
    // SAFETY: what is refused is not read.
    let (status, words) = said(|e| unsafe { trit_model_open(c"/no/such".as_ptr(), &older, &mut model, e) });
    found((status, words), TRIT_INVALID_ARGUMENT, "keys");
}

#[test]
fn every_status_has_its_name() {
    let name = |status| {
        // SAFETY: it is never null, and ends before a NUL.
        unsafe { CStr::from_ptr(trit_status_name(status)) }.to_str().unwrap()
    };
    let mut number = 0;
    while name(number) != "unknown status" {
        number += 1;
    }
    assert_eq!(number, TRIT_INTERNAL as i32 + 1);
    for status in [TRIT_OK, TRIT_BUSY, TRIT_NO_LOGITS, TRIT_CHANGED, TRIT_INTERNAL] {
        assert_eq!(name(status as i32), format!("{status:?}"));
    }
}
