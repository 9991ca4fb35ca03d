//! The header's functions for bundles, text and errors. Each checks what it is given, and hands it to `model`.
#![allow(unsafe_code)]
// The comments are those of the header, which says once for all calls what their pointers must be. C has no slices.
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]

use crate::failure::{Failure, invalid};
use crate::guard::{call, close};
use crate::model::{Opened, TextStream};
use crate::options::Opening;
use crate::pointers::{
    Borrowed, Buffer, ErrorOut, Out, Versioned, answer_versioned, c_bytes, c_text, handle, peek, slice, take,
    text, versioned, write_versioned,
};
use crate::types::*;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;
use trit_runtime::source::{FileSource, MemorySource, Source};
use trit_runtime::text::Message;

// SAFETY: numbers and a pointer, the first of which is the size.
unsafe impl Versioned for trit_options {
    const NAME: &'static str = "trit_options";
    const INIT: &'static str = "trit_options_init";
}

// SAFETY: numbers and pointers, the first of which is the size.
unsafe impl Versioned for trit_model_info {
    const NAME: &'static str = "trit_model_info";
    const INIT: &'static str = "";
}

/// The library's version, such as "0.1.0". Never null, and never freed. Any thread may call it.
#[unsafe(no_mangle)]
pub extern "C" fn trit_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The name of a status, such as "TRIT_IO"; "unknown status" for other numbers. Never null, and never freed. Any thread may call it.
#[unsafe(no_mangle)]
pub extern "C" fn trit_status_name(status: c_int) -> *const c_char {
    let name = match status {
        0 => c"TRIT_OK",
        1 => c"TRIT_INVALID_ARGUMENT",
        2 => c"TRIT_IO",
        3 => c"TRIT_INVALID_BUNDLE",
        4 => c"TRIT_UNTRUSTED",
        5 => c"TRIT_NO_KERNELS",
        6 => c"TRIT_CONTEXT_FULL",
        7 => c"TRIT_ABORTED",
        8 => c"TRIT_OUT_OF_MEMORY",
        9 => c"TRIT_BUSY",
        10 => c"TRIT_BUFFER_TOO_SMALL",
        11 => c"TRIT_UNSUPPORTED",
        12 => c"TRIT_TEXT",
        13 => c"TRIT_NO_LOGITS",
        14 => c"TRIT_MODEL",
        15 => c"TRIT_CHANGED",
        16 => c"TRIT_SYSTEM",
        17 => c"TRIT_INTERNAL",
        _ => c"unknown status",
    };
    name.as_ptr()
}

/// The status of an error; TRIT_OK for null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_error_status(error: *const trit_error) -> trit_status {
    // SAFETY: the caller has the error, which nobody writes to.
    unsafe { error.as_ref() }.map_or(trit_status::TRIT_OK, |error| error.status)
}

/// What went wrong, and what can be done about it: one line of UTF-8. It is the error's, and is valid until that is freed; "" for
/// null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_error_message(error: *const trit_error) -> *const c_char {
    // SAFETY: as in `trit_error_status`.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| error.message.as_ptr())
}

/// Frees an error and makes the pointer to it null. Null, and a pointer to null, are left as they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_error_free(error: *mut *mut trit_error) {
    // SAFETY: the caller's error, which nobody uses any more.
    if let Some(error) = unsafe { take(error) } {
        close(error);
    }
}

/// Sets every field of the structure to its default. `size` is sizeof(trit_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_options_init(
    options: *mut trit_options,
    size: usize,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe { call(ErrorOut::new(error), || write_versioned(options, size, &trit_options::default())) }
}

/// Opens the bundle at `path`, which ends before a NUL. `options` may be null. The model is the caller's, who closes it. Any thread
/// may call it. The model's threads are started; the file stays open. Where options name keys, the signature is looked for beside the
/// file, or in it where it is a program.
///
/// TRIT_IO, TRIT_INVALID_BUNDLE, TRIT_UNTRUSTED, TRIT_NO_KERNELS, TRIT_INVALID_ARGUMENT for an option that cannot be, TRIT_CHANGED,
/// TRIT_OUT_OF_MEMORY, TRIT_SYSTEM. `*model` is null then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_model_open(
    path: *const c_char,
    options: *const trit_options,
    model: *mut *mut trit_model,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        open(model, options, error, |opening| {
            let path = c_bytes(path, "path")?;
            Opened::at(&file_path(path)?, opening)
        })
    }
}

/// As trit_model_open, for the bundle in the `length` bytes of an open file from `offset` on; length 0: to the file's end. The caller
/// keeps `fd` and may close it after the call; its file position is not moved. The file must be a regular one, open for reading.
/// Weights can be mapped where `offset` is a multiple of 64. A bundle that is opened so has no signature: where options name keys, it
/// is TRIT_UNTRUSTED.
#[cfg(unix)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_model_open_fd(
    fd: c_int,
    offset: u64,
    length: u64,
    options: *const trit_options,
    model: *mut *mut trit_model,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers and descriptor, which the header describes.
    unsafe {
        open(model, options, error, |opening| {
            let file = crate::pointers::duplicate(fd)?;
            let name = format!("file descriptor {fd} from byte {offset} on");
            let failed = |error: std::io::Error| Failure::io(format!("{name}: {error}"));
            let metadata = file.metadata().map_err(failed)?;
            if !metadata.is_file() {
                return Err(Failure::io(format!(
                    "{name}: is no regular file; read it into memory and open that"
                )));
            }
            let length = if length == 0 { metadata.len().saturating_sub(offset) } else { length };
            let source = FileSource::part(file, offset, length).map_err(failed)?;
            Opened::from_source(Box::new(source), &name, opening)
        })
    }
}

/// As trit_model_open, for the bundle in `length` bytes of memory. With TRIT_BYTES_COPY they are copied. With TRIT_BYTES_BORROW they
/// are read where they are: they must stay valid and unchanged until the model and all its sessions, samplers and detokenizers are
/// closed. Most of them are copied into memory for kernels either way. As with trit_model_open_fd, there is no signature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_model_open_memory(
    bytes: *const c_void,
    length: usize,
    bytes_are: u32,
    options: *const trit_options,
    model: *mut *mut trit_model,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        open(model, options, error, |opening| {
            let borrowed = Borrowed::new(bytes.cast(), length)?;
            let source: Box<dyn Source> = match bytes_are {
                TRIT_BYTES_BORROW => Box::new(MemorySource::new(borrowed)),
                TRIT_BYTES_COPY => {
                    let mut copy = Vec::new();
                    copy.try_reserve_exact(length).map_err(|_| {
                        let message = format!(
                            "there is no memory for a copy of {length} bytes; pass TRIT_BYTES_BORROW"
                        );
                        Failure::new(trit_status::TRIT_OUT_OF_MEMORY, message)
                    })?;
                    copy.extend_from_slice(borrowed.as_ref());
                    Box::new(MemorySource::new(copy))
                }
                other => {
                    let expected = "TRIT_BYTES_COPY or TRIT_BYTES_BORROW";
                    return Err(invalid(format!("bytes_are is {other}; expected {expected}")));
                }
            };
            Opened::from_source(source, "a bundle in memory", opening)
        })
    }
}

/// What the ways to open a bundle have in common.
///
/// # Safety
/// The pointers are as the header demands.
unsafe fn open(
    model: *mut *mut trit_model,
    options: *const trit_options,
    error: *mut *mut trit_error,
    make: impl FnOnce(Opening) -> Result<Arc<Opened>, Failure>,
) -> trit_status {
    // SAFETY: by this function's contract.
    unsafe {
        call(ErrorOut::new(error), || {
            let model = Out::new(model, "model")?;
            model.set(std::ptr::null_mut());
            let options = versioned(options, trit_options::default())?;
            let keys = slice(options.keys, options.key_count, "keys")?;
            let read = |(at, key): (usize, &*const _)| file_path(c_bytes(*key, &format!("keys[{at}]"))?);
            let keys = keys.iter().enumerate().map(read).collect::<Result<Vec<_>, Failure>>()?;
            model.hand_over(trit_model { opened: make(Opening::new(&options, &keys)?)? });
            Ok(())
        })
    }
}

#[cfg(unix)]
fn file_path(bytes: &[u8]) -> Result<std::path::PathBuf, Failure> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::OsStr::from_bytes(bytes).into())
}

#[cfg(not(unix))]
fn file_path(bytes: &[u8]) -> Result<std::path::PathBuf, Failure> {
    let text = std::str::from_utf8(bytes).map_err(|_| invalid("path is no UTF-8; pass UTF-8".into()))?;
    Ok(text.into())
}

/// Closes a model and makes the pointer to it null. Null, and a pointer to null, are left as they are. Its sessions, samplers and
/// detokenizers stay valid, and keep what they need until they are closed. No other call may use this handle meanwhile or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_model_close(model: *mut *mut trit_model) {
    // SAFETY: the caller's handle, which nobody uses any more.
    if let Some(model) = unsafe { take(model) } {
        close(model);
    }
}

/// Says what a bundle is. The caller sets info->size to sizeof(trit_model_info) before. What the structure points to is the model's,
/// and is valid until that handle is closed. Any thread may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_model_describe(
    model: *const trit_model,
    info: *mut trit_model_info,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe { call(ErrorOut::new(error), || answer_versioned(info, &handle(model, "model")?.opened.info())) }
}

/// The ids of `length` bytes of UTF-8, which need no NUL. `add_special`, 1 or 0: whether to add what the model wants around a text,
/// mostly a token that begins it; not for what trit_chat_prompt gives, and not for what continues a text. Up to `capacity` ids are
/// written to `ids`; `*count` is how many there are. Without a buffer (null, 0) only that is said. Any thread may call it.
///
/// TRIT_BUFFER_TOO_SMALL, with no ids written; TRIT_UNSUPPORTED where the bundle has no tokenizer; TRIT_TEXT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_tokenize(
    model: *const trit_model,
    text: *const c_char,
    length: usize,
    add_special: c_int,
    ids: *mut u32,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let buffer = Buffer::new(ids, capacity, count, "ids")?;
            let opened = &handle(model, "model")?.opened;
            let text = self::text(text, length, "text")?;
            buffer.fill(&opened.tokenize(text, add_special != 0)?, &[])
        })
    }
}

/// The text of `count` ids, with a NUL behind it: `capacity` bytes of `text` are enough where it is larger than `*length`, the bytes of
/// UTF-8 that there are. Without a buffer (null, 0) only that is said. `skip_special`, 1 or 0: whether to leave special tokens out.
/// Bytes that are no UTF-8 give U+FFFD. Any thread may call it.
///
/// TRIT_BUFFER_TOO_SMALL, with no text written; TRIT_INVALID_ARGUMENT for an id outside the vocabulary; TRIT_UNSUPPORTED where the
/// bundle has no tokenizer; TRIT_TEXT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_detokenize(
    model: *const trit_model,
    ids: *const u32,
    count: usize,
    skip_special: c_int,
    text: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let buffer = Buffer::new(text.cast::<u8>(), capacity, length, "text")?;
            let opened = &handle(model, "model")?.opened;
            buffer.fill_text(&opened.detokenize(slice(ids, count, "ids")?, skip_special != 0)?)
        })
    }
}

/// The prompt that the model's chat template makes of `count` messages. `add_generation_prompt`, 1 or 0: whether it ends where the
/// assistant is to speak. It is tokenized without add_special. The buffer is as for trit_detokenize. Templates run within limits of
/// steps, memory and time. Any thread may call it.
///
/// TRIT_BUFFER_TOO_SMALL; TRIT_UNSUPPORTED where the bundle has no chat template; TRIT_TEXT where it refuses the conversation.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_chat_prompt(
    model: *const trit_model,
    messages: *const trit_message,
    count: usize,
    add_generation_prompt: c_int,
    text: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let buffer = Buffer::new(text.cast::<u8>(), capacity, length, "text")?;
            let opened = &handle(model, "model")?.opened;
            let mut said = Vec::new();
            for (at, message) in slice(messages, count, "messages")?.iter().enumerate() {
                let role = c_text(message.role, &format!("messages[{at}].role"))?;
                said.push(Message::new(role, c_text(message.content, &format!("messages[{at}].content"))?));
            }
            buffer.fill_text(&opened.chat_prompt(&said, add_generation_prompt != 0)?)
        })
    }
}

/// As trit_chat_prompt, for `json_length` bytes of JSON: a list of messages, or an object with "messages" and perhaps "tools",
/// "documents", "add_generation_prompt" (true where it is left out) and "chat_template_kwargs", further variables of the template.
///
/// TRIT_INVALID_ARGUMENT where it is no such JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_chat_prompt_json(
    model: *const trit_model,
    json: *const c_char,
    json_length: usize,
    text: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let buffer = Buffer::new(text.cast::<u8>(), capacity, length, "text")?;
            let opened = &handle(model, "model")?.opened;
            buffer.fill_text(&opened.chat_prompt_json(self::text(json, json_length, "json")?)?)
        })
    }
}

/// Begins to turn ids into text one by one. The first continues `count` ids of `prompt`, whose own text is not given. The detokenizer
/// is the caller's, who closes it.
///
/// TRIT_UNSUPPORTED where the bundle has no tokenizer; TRIT_INVALID_ARGUMENT for an id outside the vocabulary.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_detokenizer_new(
    model: *const trit_model,
    prompt: *const u32,
    count: usize,
    detokenizer: *mut *mut trit_detokenizer,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let detokenizer = Out::new(detokenizer, "detokenizer")?;
            detokenizer.set(std::ptr::null_mut());
            let opened = &handle(model, "model")?.opened;
            let stream = TextStream::new(opened, slice(prompt, count, "prompt")?)?;
            detokenizer.hand_over(trit_detokenizer { stream });
            Ok(())
        })
    }
}

/// Takes the next id, or TRIT_NO_ID for the end, and gives the text that became certain: whole characters, often one word and often
/// none. `*text` is `*length` bytes of UTF-8 with a NUL behind them; it is the detokenizer's, and is valid until its next call. After
/// the end, further ids continue the text.
///
/// TRIT_INVALID_ARGUMENT for an id outside the vocabulary; TRIT_BUSY; TRIT_TEXT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_detokenizer_push(
    detokenizer: *mut trit_detokenizer,
    id: u32,
    text: *mut *const c_char,
    length: *mut usize,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let (text, length) = (Out::new(text, "text")?, Out::new(length, "length")?);
            text.set(c"".as_ptr());
            length.set(0);
            let stream = &handle(detokenizer, "detokenizer")?.stream;
            stream.push((id != TRIT_NO_ID).then_some(id), |given| {
                text.set(given.as_ptr().cast());
                length.set(given.len() - 1);
            })
        })
    }
}

/// Closes a detokenizer and makes the pointer to it null. Null, and a pointer to null, are left as they are. TRIT_BUSY where a call
/// uses it, which it then stays open for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_detokenizer_close(
    detokenizer: *mut *mut trit_detokenizer,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's handle, which nobody uses any more unless it is busy.
    unsafe {
        call(ErrorOut::new(error), || {
            if peek(detokenizer).is_some_and(|handle| handle.stream.is_busy()) {
                return Err(Failure::busy("detokenizer"));
            }
            drop(take(detokenizer));
            Ok(())
        })
    }
}
