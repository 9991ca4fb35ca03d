//! Calls from C, in any order, with any numbers: on handles that are open, closed or null. Pointers are what the header demands:
//! null, or memory of as many elements as are stated.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::LazyLock;
use trit::trit_status::*;
use trit::*;
use trit_fuzz::assembled;

/// Handles of each kind that a sequence of calls has.
const SLOTS: usize = 3;
/// Most elements of a buffer.
const ROOM: usize = 64;

/// A small bundle without code of its own, with a tokenizer and a template.
static BUNDLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut manifest = assembled::manifest(1);
    manifest.text.chat_template =
        Some("{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}".to_owned());
    assembled::file(&manifest, assembled::sections(&manifest, 1)).expect("it can be encoded")
});

/// The address of a model that stays open: to open one takes longer than all other calls.
static SHARED: LazyLock<usize> = LazyLock::new(|| {
    let options = Options { size: None, fields: [1, 0, 2, 0, 0, 0, 0, 0, 2, 0], zeros: 0xffff, keys: vec![] };
    let ((options, ..), mut opened) = (self::options(&options), null_mut());
    // SAFETY: a bundle that is never freed, and living values.
    let status = said(|e| unsafe {
        let (at, len) = (BUNDLE.as_ptr().cast(), BUNDLE.len());
        trit_model_open_memory(at, len, TRIT_BYTES_BORROW, &options, &mut opened, e)
    });
    assert_eq!(status, TRIT_OK);
    opened.expose_provenance()
});

/// Closes a model, unless it is the one that stays open.
///
/// # Safety
/// The handle is open or null.
unsafe fn close_model(model: *mut *mut trit_model) {
    // SAFETY: by this function's contract.
    unsafe {
        if (*model).addr() == *SHARED {
            *model = null_mut();
        }
        trit_model_close(model);
    }
}

#[derive(Debug, Arbitrary)]
struct Generation {
    size: Option<u16>,
    floats: [f32; 6],
    top_k: u32,
    ignore_stop_ids: u32,
    seed: u64,
    max_tokens: u8,
    stop_texts: Vec<Option<String>>,
    no_drafts: u32,
    reserved: u32,
}

#[derive(Debug, Arbitrary)]
struct Options {
    size: Option<u16>,
    fields: [u32; 10],
    zeros: u16,
    keys: Vec<Option<String>>,
}

#[derive(Debug, Arbitrary)]
enum Call {
    OpenMemory { model: u8, short: Vec<u8>, whole: bool, bytes_are: u32, options: Option<Options> },
    OpenFd { fd: i32, offset: u64, length: u64 },
    CloseModel(u8),
    Describe { model: u8, size: u16 },
    Tokenize { model: u8, text: Vec<u8>, special: c_int, room: u8 },
    Detokenize { model: u8, ids: Vec<u32>, skip: c_int, room: u8 },
    Chat { model: u8, messages: Vec<(Option<String>, Option<String>)>, prompt: c_int, room: u8 },
    ChatJson { model: u8, json: Vec<u8>, room: u8 },
    Detokenizer { model: u8, slot: u8, prompt: Vec<u8> },
    Push { slot: u8, id: u32 },
    CloseDetokenizer(u8),
    Session { model: u8, slot: u8 },
    Fork { slot: u8, position: usize, to: u8 },
    CloseSession(u8),
    Abort(u8),
    Resume(u8),
    Tokens { slot: u8, room: u8 },
    Prefill { slot: u8, ids: Vec<u8>, far: bool },
    Append { slot: u8, id: u32 },
    Set { slot: u8, ids: Vec<u8> },
    Truncate { slot: u8, position: usize },
    Logits { slot: u8, room: u8 },
    Decode { slot: u8, generation: Option<Generation>, stop_after: u8, meddle: bool },
    Sampler { model: u8, slot: u8, generation: Option<Generation> },
    Choose { slot: u8, session: u8, logits: Option<Vec<f32>> },
    CloseSampler(u8),
}

/// The handles, and what the callback does to them.
struct State {
    models: [*mut trit_model; SLOTS],
    sessions: [*mut trit_session; SLOTS],
    samplers: [*mut trit_sampler; SLOTS],
    streams: [*mut trit_detokenizer; SLOTS],
}

/// Who is called back, and after how many tokens it ends.
struct Listener {
    session: *mut trit_session,
    left: u8,
    meddle: bool,
}

fn slot(index: u8) -> usize {
    usize::from(index) % SLOTS
}

/// Makes a call and reads its error, which has words exactly where the call failed.
fn said(call: impl FnOnce(*mut *mut trit_error) -> trit_status) -> trit_status {
    let mut error = null_mut();
    let status = call(&mut error);
    // SAFETY: the call left null or an error there.
    unsafe {
        assert_eq!(trit_error_status(error), status);
        let words = CStr::from_ptr(trit_error_message(error)).to_str().expect("errors are text");
        assert_eq!(words.is_empty(), status == TRIT_OK);
        assert_ne!(status, TRIT_INTERNAL, "{words}");
        trit_error_free(&mut error);
    }
    status
}

unsafe extern "C" fn token(user: *mut c_void, id: u32, text: *const c_char, length: usize) -> c_int {
    // SAFETY: the listener that `Call::Decode` passed, which lives during the call; a text with a NUL behind it.
    unsafe {
        let listener = &mut *user.cast::<Listener>();
        assert_eq!(CStr::from_ptr(text).count_bytes(), length);
        if listener.meddle {
            let mut session = listener.session;
            assert_eq!(trit_session_append(session, id, null_mut()), TRIT_BUSY);
            assert_eq!(trit_session_close(&mut session, null_mut()), TRIT_BUSY);
        }
        listener.left = listener.left.saturating_sub(1);
        c_int::from(listener.left == 0)
    }
}

/// Texts for C, and the pointers to them.
fn texts(asked: &[Option<String>]) -> (Vec<Option<CString>>, Vec<*const c_char>) {
    let own = |text: &Option<String>| text.as_ref().and_then(|t| CString::new(&**t).ok());
    let owned: Vec<Option<CString>> = asked.iter().take(4).map(own).collect();
    let pointers = owned.iter().map(|text| text.as_ref().map_or(null(), |t| t.as_ptr())).collect();
    (owned, pointers)
}

/// The structure with its texts, which must live as long.
fn generation(asked: &Generation) -> (trit_generation, Vec<Option<CString>>, Vec<*const c_char>) {
    let (owned, texts) = texts(&asked.stop_texts);
    let [temperature, top_p, min_p, repeat_penalty, frequency_penalty, presence_penalty] = asked.floats;
    let whole = size_of::<trit_generation>();
    let made = trit_generation {
        // No more than there is.
        size: asked.size.map_or(whole, |size| usize::from(size) % (whole + 1)),
        temperature,
        top_p,
        min_p,
        repeat_penalty,
        frequency_penalty,
        presence_penalty,
        top_k: asked.top_k,
        ignore_stop_ids: asked.ignore_stop_ids,
        seed: asked.seed,
        max_tokens: asked.max_tokens.into(),
        stop_texts: if texts.is_empty() { null() } else { texts.as_ptr() },
        stop_text_count: texts.len(),
        no_drafts: asked.no_drafts,
        reserved: asked.reserved,
    };
    (made, owned, texts)
}

/// The structure with the paths of its keys, which must live as long.
fn options(asked: &Options) -> (trit_options, Vec<Option<CString>>, Vec<*const c_char>) {
    let (owned, keys) = texts(&asked.keys);
    // Most fields are 0 in most calls.
    let field = |i: usize| if asked.zeros >> i & 1 == 0 { 0 } else { asked.fields[i] };
    let whole = size_of::<trit_options>();
    let made = trit_options {
        size: asked.size.map_or(whole, |size| usize::from(size) % (whole + 1)),
        threads: field(0),
        kernels: field(1),
        // A stranger's machine code never runs here.
        trust: if field(2) == TRIT_TRUST_ALWAYS { TRIT_TRUST_NEVER } else { field(2) },
        verify: field(3),
        context: field(4),
        kv: field(5),
        state: field(6),
        weights: field(7),
        tuning: if field(8) < TRIT_TUNING_OFF { TRIT_TUNING_OFF } else { field(8) },
        reserved: field(9),
        keys: if keys.is_empty() { null() } else { keys.as_ptr() },
        key_count: keys.len(),
    };
    (made, owned, keys)
}

fn buffer<T: Clone + Default>(room: u8) -> Vec<T> {
    vec![T::default(); usize::from(room) % (ROOM + 1)]
}

/// Null where there is no room, as the header allows.
fn place<T>(buffer: &mut [T]) -> *mut T {
    if buffer.is_empty() { null_mut() } else { buffer.as_mut_ptr() }
}

/// Puts a new handle in a slot and closes the one before.
fn put<T>(slot: &mut *mut T, new: *mut T, close: impl FnOnce(*mut *mut T)) {
    let mut old = std::mem::replace(slot, new);
    close(&mut old);
    assert!(old.is_null());
}

impl State {
    /// # Safety
    /// The handles are open or null, and no other thread uses them.
    unsafe fn call(&mut self, call: &Call) {
        // SAFETY: by this function's contract; every other pointer is of a value that outlives the call.
        unsafe {
            match call {
                Call::OpenMemory { model, short, whole, bytes_are, options: asked } => {
                    let bytes = if *whole { BUNDLE.clone() } else { assembled::long(short) };
                    let options = asked.as_ref().map(options);
                    let options = options.as_ref().map_or(null(), |made| std::ptr::from_ref(&made.0));
                    let mut opened = null_mut();
                    // What is borrowed must live as long as the model: the bundle alone does.
                    let kept = if *whole { BUNDLE.as_slice() } else { &bytes };
                    let how =
                        if *whole || *bytes_are != TRIT_BYTES_BORROW { *bytes_are } else { TRIT_BYTES_COPY };
                    let status = said(|e| {
                        trit_model_open_memory(kept.as_ptr().cast(), kept.len(), how, options, &mut opened, e)
                    });
                    assert_eq!(status == TRIT_OK, !opened.is_null());
                    put(&mut self.models[slot(*model)], opened, |old| close_model(old));
                }
                Call::OpenFd { fd, offset, length } => {
                    let mut opened = null_mut();
                    // A number that is no open file, or no ordinary one.
                    let fd = if *fd >= 0 { fd.saturating_add(1 << 20) } else { *fd };
                    let status = said(|e| trit_model_open_fd(fd, *offset, *length, null(), &mut opened, e));
                    assert!(status != TRIT_OK && opened.is_null());
                }
                Call::CloseModel(model) => close_model(&mut self.models[slot(*model)]),
                Call::Describe { model, size } => {
                    let mut info: trit_model_info = std::mem::zeroed();
                    info.size = usize::from(*size) % (size_of::<trit_model_info>() + 1);
                    let model = self.models[slot(*model)];
                    // A smaller structure is an older one, which may end before the name.
                    let named = info.size >= std::mem::offset_of!(trit_model_info, kernels);
                    if said(|e| trit_model_describe(model, &mut info, e)) == TRIT_OK && named {
                        let _ = CStr::from_ptr(info.name).to_str().expect("names are text");
                    }
                }
                Call::Tokenize { model, text, special, room } => {
                    let (mut ids, mut count) = (buffer::<u32>(*room), 0);
                    let (model, text) = (self.models[slot(*model)], text.as_slice());
                    said(|e| {
                        let (at, len) = (text.as_ptr().cast(), text.len());
                        trit_tokenize(model, at, len, *special, place(&mut ids), ids.len(), &mut count, e)
                    });
                }
                Call::Detokenize { model, ids, skip, room } => {
                    let (mut text, mut length) = (buffer::<c_char>(*room), 0);
                    let model = self.models[slot(*model)];
                    said(|e| {
                        let (at, len) = (ids.as_ptr(), ids.len());
                        trit_detokenize(model, at, len, *skip, place(&mut text), text.len(), &mut length, e)
                    });
                }
                Call::Chat { model, messages, prompt, room } => {
                    let own = |text: &Option<String>| text.as_ref().and_then(|t| CString::new(&**t).ok());
                    let owned: Vec<_> = messages.iter().take(4).map(|(a, b)| (own(a), own(b))).collect();
                    let at = |text: &Option<CString>| text.as_ref().map_or(null(), |t| t.as_ptr());
                    let messages: Vec<_> =
                        owned.iter().map(|(a, b)| trit_message { role: at(a), content: at(b) }).collect();
                    let (mut text, mut length) = (buffer::<c_char>(*room), 0);
                    let model = self.models[slot(*model)];
                    said(|e| {
                        let (at, len) = (messages.as_ptr(), messages.len());
                        trit_chat_prompt(
                            model,
                            at,
                            len,
                            *prompt,
                            place(&mut text),
                            text.len(),
                            &mut length,
                            e,
                        )
                    });
                }
                Call::ChatJson { model, json, room } => {
                    let (mut text, mut length) = (buffer::<c_char>(*room), 0);
                    let model = self.models[slot(*model)];
                    said(|e| {
                        let (at, len) = (json.as_ptr().cast(), json.len());
                        trit_chat_prompt_json(model, at, len, place(&mut text), text.len(), &mut length, e)
                    });
                }
                Call::Detokenizer { model, slot: to, prompt } => {
                    let prompt: Vec<u32> = prompt.iter().map(|&id| u32::from(id) % 12).collect();
                    let (model, mut made) = (self.models[slot(*model)], null_mut());
                    said(|e| trit_detokenizer_new(model, prompt.as_ptr(), prompt.len(), &mut made, e));
                    put(&mut self.streams[slot(*to)], made, |old| {
                        said(|e| trit_detokenizer_close(old, e));
                    });
                }
                Call::Push { slot: of, id } => {
                    let (mut text, mut length) = (null(), 0);
                    let stream = self.streams[slot(*of)];
                    said(|e| trit_detokenizer_push(stream, *id, &mut text, &mut length, e));
                    assert_eq!(CStr::from_ptr(text).count_bytes(), length);
                }
                Call::CloseDetokenizer(of) => {
                    said(|e| trit_detokenizer_close(&mut self.streams[slot(*of)], e));
                }
                Call::Session { model, slot: to } => {
                    let (model, mut made) = (self.models[slot(*model)], null_mut());
                    said(|e| trit_session_new(model, &mut made, e));
                    self.keep(*to, made);
                }
                Call::Fork { slot: of, position, to } => {
                    let (session, mut made) = (self.sessions[slot(*of)], null_mut());
                    said(|e| trit_session_fork(session, *position, &mut made, e));
                    self.keep(*to, made);
                }
                Call::CloseSession(of) => {
                    said(|e| trit_session_close(&mut self.sessions[slot(*of)], e));
                }
                Call::Abort(of) => trit_session_abort(self.sessions[slot(*of)]),
                Call::Resume(of) => trit_session_resume(self.sessions[slot(*of)]),
                Call::Tokens { slot: of, room } => {
                    let (session, mut ids, mut count) = (self.sessions[slot(*of)], buffer::<u32>(*room), 0);
                    said(|e| trit_session_tokens(session, place(&mut ids), ids.len(), &mut count, e));
                    said(|e| trit_session_length(session, &mut count, e));
                }
                Call::Prefill { slot: of, ids, far } => {
                    let session = self.sessions[slot(*of)];
                    let ids: Vec<u32> = ids
                        .iter()
                        .map(|&id| if *far { u32::from(id) << 24 } else { u32::from(id) % 11 })
                        .collect();
                    said(|e| trit_session_prefill(session, ids.as_ptr(), ids.len(), e));
                }
                Call::Append { slot: of, id } => {
                    let session = self.sessions[slot(*of)];
                    said(|e| trit_session_append(session, *id, e));
                }
                Call::Set { slot: of, ids } => {
                    let session = self.sessions[slot(*of)];
                    let ids: Vec<u32> = ids.iter().map(|&id| u32::from(id) % 11).collect();
                    let mut kept = 0;
                    said(|e| trit_session_set(session, ids.as_ptr(), ids.len(), &mut kept, e));
                    assert!(kept <= ids.len());
                }
                Call::Truncate { slot: of, position } => {
                    let session = self.sessions[slot(*of)];
                    said(|e| trit_session_truncate(session, *position, e));
                }
                Call::Logits { slot: of, room } => {
                    let (session, mut logits, mut count) =
                        (self.sessions[slot(*of)], buffer::<f32>(*room), 0);
                    said(|e| trit_session_logits(session, place(&mut logits), logits.len(), &mut count, e));
                }
                Call::Decode { slot: of, generation: asked, stop_after, meddle } => {
                    let session = self.sessions[slot(*of)];
                    let made = asked.as_ref().map(generation);
                    let generation = made.as_ref().map_or(null(), |made| std::ptr::from_ref(&made.0));
                    let mut listener = Listener { session, left: *stop_after, meddle: *meddle };
                    let mut result = trit_result { size: size_of::<trit_result>(), ..trit_result::default() };
                    let user = std::ptr::from_mut(&mut listener).cast();
                    said(|e| trit_session_decode(session, generation, Some(token), user, &mut result, e));
                }
                Call::Sampler { model, slot: to, generation: asked } => {
                    let made = asked.as_ref().map(generation);
                    let generation = made.as_ref().map_or(null(), |made| std::ptr::from_ref(&made.0));
                    let (model, mut sampler) = (self.models[slot(*model)], null_mut());
                    said(|e| trit_sampler_new(model, generation, &mut sampler, e));
                    put(&mut self.samplers[slot(*to)], sampler, |old| {
                        said(|e| trit_sampler_close(old, e));
                    });
                }
                Call::Choose { slot: of, session, logits } => {
                    let (sampler, session) = (self.samplers[slot(*of)], self.sessions[slot(*session)]);
                    let logits = logits.as_deref();
                    let (at, len) = logits.map_or((null(), 0), |logits| (logits.as_ptr(), logits.len()));
                    let mut id = 0;
                    let status = said(|e| trit_sampler_choose(sampler, session, at, len, &mut id, e));
                    assert_eq!(status == TRIT_OK, id != TRIT_NO_ID);
                }
                Call::CloseSampler(of) => {
                    said(|e| trit_sampler_close(&mut self.samplers[slot(*of)], e));
                }
            }
        }
    }

    /// # Safety
    /// As [`State::call`].
    unsafe fn keep(&mut self, to: u8, made: *mut trit_session) {
        put(&mut self.sessions[slot(to)], made, |old| {
            // SAFETY: by this function's contract.
            said(|e| unsafe { trit_session_close(old, e) });
        });
    }
}

fuzz_target!(|calls: Vec<Call>| {
    let mut state = State {
        models: [null_mut(); SLOTS],
        sessions: [null_mut(); SLOTS],
        samplers: [null_mut(); SLOTS],
        streams: [null_mut(); SLOTS],
    };
    state.models[0] = std::ptr::with_exposed_provenance_mut(*SHARED);
    // SAFETY: all handles are null or were opened by these calls, and this thread alone has them.
    unsafe {
        state.call(&Call::Session { model: 0, slot: 0 });
        for call in calls.iter().take(40) {
            state.call(call);
        }
        // In any order: sessions keep their model.
        state.models.iter_mut().for_each(|model| close_model(model));
        for index in 0..SLOTS as u8 {
            state.call(&Call::CloseSession(index));
            state.call(&Call::CloseSampler(index));
            state.call(&Call::CloseDetokenizer(index));
        }
    }
});
