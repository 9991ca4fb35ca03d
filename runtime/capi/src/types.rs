//! What the header declares besides functions. Names and comments are those of C.
#![allow(non_camel_case_types)]

use std::ffi::{CString, c_char};

/// What a call came to. Every call that can fail returns one, and says more through its last argument, `error`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum trit_status {
    /// It did what it says.
    TRIT_OK = 0,
    /// An argument cannot be: a null pointer, a length, text that is no UTF-8, an id outside the vocabulary, an option.
    TRIT_INVALID_ARGUMENT = 1,
    /// The system could not open or read the file.
    TRIT_IO = 2,
    /// The bytes are no bundle that this version can run, or are damaged.
    TRIT_INVALID_BUNDLE = 3,
    /// The bundle's machine code was asked for, and nothing says that it may run.
    TRIT_UNTRUSTED = 4,
    /// The kernels that were asked for cannot run on this machine.
    TRIT_NO_KERNELS = 5,
    /// The tokens do not fit the context.
    TRIT_CONTEXT_FULL = 6,
    /// Another thread ended the call with trit_session_abort.
    TRIT_ABORTED = 7,
    /// The system refused memory.
    TRIT_OUT_OF_MEMORY = 8,
    /// Another call uses the handle: in another thread, or the one whose callback this is.
    TRIT_BUSY = 9,
    /// The buffer has no room. The number of elements that there are was written.
    TRIT_BUFFER_TOO_SMALL = 10,
    /// The bundle does not have what was asked for: a tokenizer, a chat template.
    TRIT_UNSUPPORTED = 11,
    /// The tokenizer or the chat template could not do its work on this text.
    TRIT_TEXT = 12,
    /// The session has no logits after its last token.
    TRIT_NO_LOGITS = 13,
    /// The model computed what is no number, or its rules forbid every token.
    TRIT_MODEL = 14,
    /// The bundle's file was changed while it was in use.
    TRIT_CHANGED = 15,
    /// The system refused something else, such as threads.
    TRIT_SYSTEM = 16,
    /// A defect of the library. Close the handles that the call was given.
    TRIT_INTERNAL = 17,
}

/// No token: what stands for an id where there is none.
pub const TRIT_NO_ID: u32 = u32::MAX;

/// trit_options.kernels: the bundle's own code where it is trusted and made for this CPU, else code generated here, else portable
/// code.
pub const TRIT_KERNELS_AUTO: u32 = 0;
/// trit_options.kernels: the bundle's own code, or TRIT_UNTRUSTED or TRIT_NO_KERNELS.
pub const TRIT_KERNELS_EMBEDDED: u32 = 1;
/// trit_options.kernels: code generated on this machine.
pub const TRIT_KERNELS_JIT: u32 = 2;
/// trit_options.kernels: no generated code. It is slow, and runs everywhere.
pub const TRIT_KERNELS_PORTABLE: u32 = 3;

/// trit_options.trust: run a bundle's own code where a record says that this user compiled it on this machine, or
/// where it is signed with a key of this user's folder of keys.
pub const TRIT_TRUST_BY_RECORD: u32 = 0;
/// trit_options.trust: run it whoever compiled it. It can do whatever the process can do.
pub const TRIT_TRUST_ALWAYS: u32 = 1;
/// trit_options.trust: never run it.
pub const TRIT_TRUST_NEVER: u32 = 2;

/// trit_options.verify: check the digests of all of the bundle.
pub const TRIT_VERIFY_ALL: u32 = 0;
/// trit_options.verify: check those of the manifest, the tokenizer and the code alone, and read weights unchecked.
pub const TRIT_VERIFY_LITTLE: u32 = 1;

/// trit_options.kv: 16-bit floats, and 32-bit floats from where 16 bits cannot hold a text's keys or values.
pub const TRIT_KV_F16: u32 = 0;
/// trit_options.kv: 32-bit floats.
pub const TRIT_KV_F32: u32 = 1;
/// trit_options.kv: 8-bit integers with scales: half the memory of 16-bit floats.
pub const TRIT_KV_INT8: u32 = 2;

/// trit_options.state: 32-bit floats.
pub const TRIT_STATE_F32: u32 = 0;
/// trit_options.state: 16-bit floats.
pub const TRIT_STATE_F16: u32 = 1;

/// trit_options.weights: copied into memory where there is room, which is fastest.
pub const TRIT_WEIGHTS_AUTO: u32 = 0;
/// trit_options.weights: mapped from the file. Processes share them. Where somebody cuts the file off meanwhile, the system ends the
/// process with SIGBUS.
pub const TRIT_WEIGHTS_MAPPED: u32 = 1;

/// trit_options.tuning: use the variants of kernels that were found fastest on this machine; time them where nobody has, and write
/// the result to the user's folder for caches (trit/kernels.json).
pub const TRIT_TUNING_REMEMBERED: u32 = 0;
/// trit_options.tuning: time them again, and write the result.
pub const TRIT_TUNING_FRESH: u32 = 1;
/// trit_options.tuning: time nothing, read nothing, write nothing.
pub const TRIT_TUNING_OFF: u32 = 2;

/// trit_model_open_memory: the library makes a copy.
pub const TRIT_BYTES_COPY: u32 = 0;
/// trit_model_open_memory: the library reads the caller's bytes as long as it needs them.
pub const TRIT_BYTES_BORROW: u32 = 1;

/// trit_generation.top_k: as the model's authors suggest.
pub const TRIT_TOP_K_OF_MODEL: u32 = u32::MAX;
/// trit_generation.seed: another one each time; trit_result says which.
pub const TRIT_SEED_RANDOM: u64 = u64::MAX;

/// trit_result.finish: the model ended its text, or a stop text came.
pub const TRIT_FINISH_STOP: u32 = 0;
/// trit_result.finish: as many tokens were generated as were asked for.
pub const TRIT_FINISH_LENGTH: u32 = 1;
/// trit_result.finish: the context is full.
pub const TRIT_FINISH_CONTEXT: u32 = 2;
/// trit_result.finish: the callback asked for no more.
pub const TRIT_FINISH_CALLBACK: u32 = 3;
/// trit_result.finish: another thread ended it; the call returned TRIT_ABORTED.
pub const TRIT_FINISH_ABORTED: u32 = 4;
/// trit_result.finish: an error ended it; the call returned its status.
pub const TRIT_FINISH_ERROR: u32 = 5;

/// An open bundle with the threads that run it. Any number of threads may use one at a time.
pub struct trit_model {
    pub(crate) opened: std::sync::Arc<crate::model::Opened>,
}

/// One text with what is needed to continue it. One call at a time may use it, in any thread; others get TRIT_BUSY. Sessions of one
/// model may be used at a time: their steps run one after the other, each on all of the model's threads.
pub struct trit_session {
    pub(crate) session: crate::session::Session,
}

/// Chooses the tokens of one answer. One call at a time may use it, in any thread; others get TRIT_BUSY.
pub struct trit_sampler {
    pub(crate) sampler: crate::session::AnswerSampler,
}

/// Turns ids into text one by one, without splitting a character. One call at a time may use it, in any thread; others get TRIT_BUSY.
pub struct trit_detokenizer {
    pub(crate) stream: crate::model::TextStream,
}

/// What went wrong. It is the caller's, who frees it; any thread may read it.
pub struct trit_error {
    pub(crate) status: trit_status,
    pub(crate) message: CString,
}

/// How a bundle is opened, and how its sessions run. trit_options_init sets what is said of each field here; zero is that value of
/// every field but size.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trit_options {
    /// sizeof(trit_options): says which version of this structure it is.
    pub size: usize,
    /// Worker threads. 0: as many as the system grants the process; there are never more.
    pub threads: u32,
    /// TRIT_KERNELS_AUTO.
    pub kernels: u32,
    /// TRIT_TRUST_BY_RECORD.
    pub trust: u32,
    /// TRIT_VERIFY_ALL.
    pub verify: u32,
    /// Most tokens of a session. 0: as many as the bundle was compiled for.
    pub context: u32,
    /// Element type of the KV caches: TRIT_KV_F16.
    pub kv: u32,
    /// Element type of the recurrent state, for models that have one: TRIT_STATE_F32.
    pub state: u32,
    /// TRIT_WEIGHTS_AUTO.
    pub weights: u32,
    /// TRIT_TUNING_REMEMBERED.
    pub tuning: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// Files of public keys, each path ending before a NUL. Where there are any, the bundle is opened only if one of these keys signed
    /// it, whoever compiled it, and trust stays TRIT_TRUST_BY_RECORD. They are read during the call. Null.
    pub keys: *const *const c_char,
    /// How many these are. 0.
    pub key_count: usize,
}

/// What an open bundle is. The pointers are the library's, and are valid until the model's handle is closed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trit_model_info {
    /// sizeof(trit_model_info), which the caller sets.
    pub size: usize,
    /// Ids are below this; so many logits there are.
    pub vocab_size: u32,
    /// Most tokens of a session.
    pub context_length: u32,
    /// Most tokens that the bundle was compiled for.
    pub longest_context: u32,
    /// Worker threads that run.
    pub threads: u32,
    /// The id that begins a text; TRIT_NO_ID where there is none. trit_tokenize adds it where the model wants it.
    pub bos: u32,
    /// Whether there is a chat template: 1 or 0.
    pub has_chat_template: u32,
    /// The ids at which generation ends.
    pub stop_ids: *const u32,
    /// How many these are.
    pub stop_id_count: usize,
    /// The model's name, as the bundle says it.
    pub name: *const c_char,
    /// Which kernels run, and why they are not others, such as "embedded x86-64-v3".
    pub kernels: *const c_char,
    /// The bundle's digest, 64 hexadecimal digits.
    pub digest: *const c_char,
}

/// One message of a conversation. Both texts end before a NUL.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trit_message {
    /// Who speaks: system, user or assistant.
    pub role: *const c_char,
    /// What is said.
    pub content: *const c_char,
}

/// How tokens are chosen, and when an answer ends. trit_generation_init sets what is said of each field here. NAN in a float means:
/// as the model's authors suggest.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct trit_generation {
    /// sizeof(trit_generation): says which version of this structure it is.
    pub size: usize,
    /// Divides the logits; 0 takes the most probable token always. NAN.
    pub temperature: f32,
    /// Choose among the most probable tokens that together reach this probability, from 0 to 1; 1: among all. NAN.
    pub top_p: f32,
    /// Choose among tokens at least this many times as probable as the most probable, from 0 to 1; 0: among all. NAN.
    pub min_p: f32,
    /// Make tokens that occurred in the text less probable; 1: off. NAN.
    pub repeat_penalty: f32,
    /// Subtracted from a token's logit for each time that the answer has it, from -2 to 2. NAN.
    pub frequency_penalty: f32,
    /// Subtracted from a token's logit where the answer has it, from -2 to 2. NAN.
    pub presence_penalty: f32,
    /// Choose among so many of the most probable tokens; 0: among all. TRIT_TOP_K_OF_MODEL.
    pub top_k: u32,
    /// Whether to go on after the model says that it is done: 1 or 0. 0.
    pub ignore_stop_ids: u32,
    /// Start of the random sequence, for the same answer again. TRIT_SEED_RANDOM.
    pub seed: u64,
    /// Most tokens of the answer. 256.
    pub max_tokens: usize,
    /// Texts that end the answer and are no part of it; each ends before a NUL. They are read during the call. Null.
    pub stop_texts: *const *const c_char,
    /// How many these are. 0.
    pub stop_text_count: usize,
    /// Whether not to draft tokens: 1 or 0. The tokens are the same either way. 0.
    pub no_drafts: u32,
    /// Not used; 0.
    pub reserved: u32,
}

/// How an answer went.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct trit_result {
    /// sizeof(trit_result), which the caller sets.
    pub size: usize,
    /// Why it ended: one of TRIT_FINISH_STOP and the like.
    pub finish: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// Tokens that were generated. The id that ended the answer is not among them.
    pub generated: usize,
    /// Tokens that ran before the first was chosen.
    pub prompt_tokens: usize,
    /// Tokens drafted.
    pub drafted: usize,
    /// How many of these the model chose too.
    pub accepted: usize,
    /// The seed.
    pub seed: u64,
    /// Seconds until the first token could be chosen.
    pub prefill_seconds: f64,
    /// Seconds after that.
    pub decode_seconds: f64,
}
