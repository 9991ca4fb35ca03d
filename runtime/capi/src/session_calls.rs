//! The header's functions for sessions. Each checks what it is given, and hands it to `session`.
#![allow(unsafe_code)]
// The comments are those of the header, which says once for all calls what their pointers must be. C has no slices.
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments)]

use crate::failure::{Failure, invalid};
use crate::guard::call;
use crate::options::Generation;
use crate::pointers::{
    Buffer, ErrorOut, Out, Versioned, answer_versioned, c_text, handle, peek, slice, take, versioned,
    write_versioned,
};
use crate::session::{AnswerSampler, Session};
use crate::types::*;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

// SAFETY: numbers and pointers, the first of which is the size.
unsafe impl Versioned for trit_generation {
    const NAME: &'static str = "trit_generation";
    const INIT: &'static str = "trit_generation_init";
}

// SAFETY: numbers alone, the first of which is the size.
unsafe impl Versioned for trit_result {
    const NAME: &'static str = "trit_result";
    const INIT: &'static str = "";
}

/// Is given the tokens of an answer, as they are chosen. `id` is the token, or TRIT_NO_ID for text at the end that was held back.
/// `text` is the text that became certain with it: whole characters, `length` bytes of UTF-8, often one word and often none, with a
/// NUL behind them; it is valid during the call of the function alone. `user` is what trit_session_decode was given.
///
/// Returns 0 to go on; anything else ends the answer after this token.
///
/// It runs in the thread that called trit_session_decode. It may use other sessions, and the model; its own session and calls that
/// close it get TRIT_BUSY. It must return: it must neither throw a C++ exception nor leave by longjmp.
#[allow(non_camel_case_types)]
pub type trit_token_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, id: u32, text: *const c_char, length: usize) -> c_int>;

/// Makes an empty session. It is the caller's, who closes it; the model's handle may be closed before.
///
/// TRIT_INVALID_ARGUMENT, also in a process that was forked from the one that opened the model: open it again there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_session_new(
    model: *const trit_model,
    session: *mut *mut trit_session,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let session = Out::new(session, "session")?;
            session.set(ptr::null_mut());
            session.hand_over(trit_session { session: Session::new(&handle(model, "model")?.opened)? });
            Ok(())
        })
    }
}

/// Makes a session with the first `position` tokens of this one. They share memory, and neither sees what the other appends. It has
/// no logits until something is appended, and is not aborted where this one is.
///
/// TRIT_INVALID_ARGUMENT for a position beyond the session's length; TRIT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_session_fork(
    session: *const trit_session,
    position: usize,
    fork: *mut *mut trit_session,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let fork = Out::new(fork, "fork")?;
            fork.set(ptr::null_mut());
            fork.hand_over(trit_session { session: handle(session, "session")?.session.fork(position)? });
            Ok(())
        })
    }
}

/// Closes a session and makes the pointer to it null. Null, and a pointer to null, are left as they are. TRIT_BUSY where a call uses
/// it, which it then stays open for: abort that, wait until it has returned, and close again. No other call may begin meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_session_close(
    session: *mut *mut trit_session,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's handle, which nobody uses any more unless it is busy.
    unsafe {
        call(ErrorOut::new(error), || {
            if peek(session).is_some_and(|handle| handle.session.is_busy()) {
                return Err(Failure::busy("session"));
            }
            drop(take(session));
            Ok(())
        })
    }
}

/// Ends the call that uses the session, and every later one that runs tokens, with TRIT_ABORTED, until trit_session_resume. Any thread
/// may call it at any time before the session is closed, a signal handler too; it returns at once. The running call returns after at
/// most one step of the model. What it had not finished is taken back: only the tokens that a callback was given stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_session_abort(session: *const trit_session) {
    // SAFETY: the caller's handle. Nothing but a store to memory of ours follows.
    if let Some(handle) = unsafe { session.as_ref() } {
        handle.session.abort(true);
    }
}

/// Lets the session run tokens again. Any thread may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_session_resume(session: *const trit_session) {
    // SAFETY: as in `trit_session_abort`.
    if let Some(handle) = unsafe { session.as_ref() } {
        handle.session.abort(false);
    }
}

/// How many tokens the session has.
///
/// TRIT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_session_length(
    session: *const trit_session,
    length: *mut usize,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let length = Out::new(length, "length")?;
            length.set(handle(session, "session")?.session.len()?);
            Ok(())
        })
    }
}

/// The session's tokens. Up to `capacity` are written to `ids`; `*count` is how many there are. Without a buffer (null, 0) only that
/// is said.
///
/// TRIT_BUFFER_TOO_SMALL, with no ids written; TRIT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_session_tokens(
    session: *const trit_session,
    ids: *mut u32,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let buffer = Buffer::new(ids, capacity, count, "ids")?;
            buffer.fill(&handle(session, "session")?.session.ids()?, &[])
        })
    }
}

/// Appends `count` tokens and runs them. Afterwards the session has the logits after the last.
///
/// TRIT_INVALID_ARGUMENT for no tokens and for an id outside the vocabulary; TRIT_CONTEXT_FULL; TRIT_ABORTED; TRIT_BUSY; TRIT_MODEL;
/// TRIT_CHANGED; TRIT_OUT_OF_MEMORY. The session's tokens are as before then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_session_prefill(
    session: *mut trit_session,
    ids: *const u32,
    count: usize,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || handle(session, "session")?.session.append(slice(ids, count, "ids")?))
    }
}

/// Appends one token and runs it: trit_session_prefill for one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_session_append(
    session: *mut trit_session,
    id: u32,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe { call(ErrorOut::new(error), || handle(session, "session")?.session.append(&[id])) }
}

/// Makes the session's tokens these `count`, and runs those that it has not run: for conversations, whose next prompt begins with most
/// of what was said. `*kept` (may be null) is how many did not have to run. Otherwise as trit_session_prefill; where it fails, the
/// session has the tokens that both texts begin with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_session_set(
    session: *mut trit_session,
    ids: *const u32,
    count: usize,
    kept: *mut usize,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let kept = Out::optional(kept);
            let known = handle(session, "session")?.session.set(slice(ids, count, "ids")?)?;
            kept.inspect(|kept| kept.set(known));
            Ok(())
        })
    }
}

/// Forgets all but the first `position` tokens. The session then has no logits, unless that is all of them.
///
/// TRIT_INVALID_ARGUMENT for a position beyond the session's length; TRIT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_session_truncate(
    session: *mut trit_session,
    position: usize,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe { call(ErrorOut::new(error), || handle(session, "session")?.session.truncate(position)) }
}

/// Copies the logits after the last token: as many floats as the vocabulary has tokens. `*count` is how many there are; without a
/// buffer (null, 0) only that is said.
///
/// TRIT_NO_LOGITS where the last call that changed the session was no trit_session_prefill, append or set; TRIT_BUFFER_TOO_SMALL;
/// TRIT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_session_logits(
    session: *const trit_session,
    logits: *mut f32,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let buffer = Buffer::new(logits, capacity, count, "logits")?;
            handle(session, "session")?.session.logits(|values| buffer.fill(values, &[]))
        })
    }
}

/// Sets every field of the structure to its default. `size` is sizeof(trit_generation).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_generation_init(
    generation: *mut trit_generation,
    size: usize,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe { call(ErrorOut::new(error), || write_versioned(generation, size, &trit_generation::default())) }
}

/// What a structure says of an answer, with its texts read.
///
/// # Safety
/// The pointers are as the header demands.
unsafe fn asked(generation: *const trit_generation) -> Result<Generation, Failure> {
    // SAFETY: by this function's contract.
    unsafe {
        let generation = versioned(generation, trit_generation::default())?;
        let pointers = slice(generation.stop_texts, generation.stop_text_count, "stop_texts")?;
        let read = |(at, text): (usize, &*const _)| c_text(*text, &format!("stop_texts[{at}]"));
        let stop_texts = pointers.iter().enumerate().map(read).collect::<Result<Vec<&str>, Failure>>()?;
        Generation::new(&generation, &stop_texts)
    }
}

/// Generates an answer after the session's tokens, which get those of the answer, and calls `callback` with each as it is chosen.
/// `generation` may be null, for the defaults; `user` is handed to the callback; `result` may be null; where it is not, its size is
/// set by the caller, and it is filled in whenever an answer began, also where that failed. Where the session has no logits, its last
/// token runs again first. An id at which the answer ends is no part of it and of the session; a stop text is no part of the
/// texts, but its tokens stay in the session.
///
/// The texts, joined, are the answer's whole text. The same session, options and seed give the same tokens again.
///
/// TRIT_INVALID_ARGUMENT for an option that cannot be and for an empty session; TRIT_ABORTED; TRIT_BUSY; TRIT_MODEL; TRIT_CHANGED;
/// TRIT_OUT_OF_MEMORY; TRIT_UNSUPPORTED for stop texts where the bundle has no tokenizer. The session has the tokens that the callback
/// was given. An answer that fills the context is no error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_session_decode(
    session: *mut trit_session,
    generation: *const trit_generation,
    callback: trit_token_callback,
    user: *mut c_void,
    result: *mut trit_result,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let session = &handle(session, "session")?.session;
            let callback = callback.ok_or_else(|| invalid("callback is null".into()))?;
            let asked = asked(generation)?;
            if !result.is_null() {
                // Its size is looked at before anything runs.
                answer_versioned(
                    result,
                    &trit_result { size: size_of::<trit_result>(), ..trit_result::default() },
                )?;
            }
            let mut given = Vec::new();
            let mut each = |id: Option<u32>, text: &str| {
                given.clear();
                given.extend_from_slice(text.as_bytes());
                given.push(0);
                callback(user, id.unwrap_or(TRIT_NO_ID), given.as_ptr().cast(), text.len()) == 0
            };
            let decoded = session.decode(&asked, &mut each)?;
            if !result.is_null() {
                answer_versioned(result, &decoded.result)?;
            }
            decoded.failure.map_or(Ok(()), Err)
        })
    }
}

/// Makes what chooses the tokens of one answer, for programs that append them themselves. `generation` may be null; what it says of the
/// answer's end has no meaning here. The sampler is the caller's, who closes it.
///
/// TRIT_INVALID_ARGUMENT for an option that cannot be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_sampler_new(
    model: *const trit_model,
    generation: *const trit_generation,
    sampler: *mut *mut trit_sampler,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let sampler = Out::new(sampler, "sampler")?;
            sampler.set(ptr::null_mut());
            let opened = &handle(model, "model")?.opened;
            sampler.hand_over(trit_sampler { sampler: AnswerSampler::new(opened, &asked(generation)?) });
            Ok(())
        })
    }
}

/// Chooses a token after the session's, and does not append it. The answer begins where the session is at the first call. `logits` are
/// `count` floats to choose by, one for each token, as a program has changed them; null: the session's own. Logits that are not finite
/// are never chosen. Whether the id ends the answer is for the caller to see: trit_model_info has the stop ids.
///
/// TRIT_NO_LOGITS; TRIT_INVALID_ARGUMENT where there are not as many logits as tokens; TRIT_MODEL where every token is forbidden;
/// TRIT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_sampler_choose(
    sampler: *mut trit_sampler,
    session: *const trit_session,
    logits: *const f32,
    count: usize,
    id: *mut u32,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's pointers, which the header describes.
    unsafe {
        call(ErrorOut::new(error), || {
            let id = Out::new(id, "id")?;
            id.set(TRIT_NO_ID);
            let sampler = &handle(sampler, "sampler")?.sampler;
            let session = &handle(session, "session")?.session;
            let changed = match logits.is_null() {
                true if count > 0 => return Err(invalid("logits are null, but count is not 0".into())),
                true => None,
                false => Some(slice(logits, count, "logits")?),
            };
            id.set(session.choose(sampler, changed)?);
            Ok(())
        })
    }
}

/// Closes a sampler and makes the pointer to it null. Null, and a pointer to null, are left as they are. TRIT_BUSY where a call uses
/// it, which it then stays open for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trit_sampler_close(
    sampler: *mut *mut trit_sampler,
    error: *mut *mut trit_error,
) -> trit_status {
    // SAFETY: the caller's handle, which nobody uses any more unless it is busy.
    unsafe {
        call(ErrorOut::new(error), || {
            if peek(sampler).is_some_and(|handle| handle.sampler.is_busy()) {
                return Err(Failure::busy("sampler"));
            }
            drop(take(sampler));
            Ok(())
        })
    }
}
