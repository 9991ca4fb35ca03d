/* The C interface of trit: runs ternary language models from .trit bundles. Generated from runtime/capi/src; docs/c.md explains it.

   Rules for all calls:

   - A call that can fail returns a trit_status, and takes as its last argument where to put an error. That may be null. Where it is
     not, it is set to null by a call that succeeds, and to a new error by one that fails, which the caller frees with trit_error_free.
     What was there before is not freed. Nothing is kept of errors: no thread has a last one.
   - Handles are opaque. Who makes one closes it, through a pointer to the pointer, which becomes null. Null in place of a handle is
     TRIT_INVALID_ARGUMENT. A copy of a pointer whose handle was closed must not be used.
   - A model may be used by any number of threads at a time. Of a session, a sampler and a detokenizer one call at a time may be made,
     from any thread; another one gets TRIT_BUSY and changes nothing. trit_session_abort and trit_session_resume may always be called.
   - Where a call fails, everything is as it was before, unless it says otherwise, and results are null or 0.
   - No call keeps a pointer that it was given, but trit_model_open_memory with TRIT_BYTES_BORROW.
   - Structures begin with their size, so that programs and libraries of different versions go together. Numbers for truth are 0 or 1.
   - Texts are UTF-8. Those that enter with a length need no NUL, and may hold one.
   - The library handles no signals, prints nothing, never ends the process and lets no exception or panic out. It stays loaded when a
     program unloads it. In a forked child a model must be opened again; handles of the parent may only be closed there. */

#ifndef TRIT_H
#define TRIT_H

#include <stddef.h>
#include <stdint.h>

// No token: what stands for an id where there is none.
#define TRIT_NO_ID UINT32_MAX

// trit_options.kernels: the bundle's own code where it is trusted and made for this CPU, else code generated here, else portable
// code.
#define TRIT_KERNELS_AUTO 0

// trit_options.kernels: the bundle's own code, or TRIT_UNTRUSTED or TRIT_NO_KERNELS.
#define TRIT_KERNELS_EMBEDDED 1

// trit_options.kernels: code generated on this machine.
#define TRIT_KERNELS_JIT 2

// trit_options.kernels: no generated code. It is slow, and runs everywhere.
#define TRIT_KERNELS_PORTABLE 3

// trit_options.trust: run a bundle's own code where a record says that this user compiled it on this machine, or
// where it is signed with a key of this user's folder of keys.
#define TRIT_TRUST_BY_RECORD 0

// trit_options.trust: run it whoever compiled it. It can do whatever the process can do.
#define TRIT_TRUST_ALWAYS 1

// trit_options.trust: never run it.
#define TRIT_TRUST_NEVER 2

// trit_options.verify: check the digests of all of the bundle.
#define TRIT_VERIFY_ALL 0

// trit_options.verify: check those of the manifest, the tokenizer and the code alone, and read weights unchecked.
#define TRIT_VERIFY_LITTLE 1

// trit_options.kv: 16-bit floats, and 32-bit floats from where 16 bits cannot hold a text's keys or values.
#define TRIT_KV_F16 0

// trit_options.kv: 32-bit floats.
#define TRIT_KV_F32 1

// trit_options.kv: 8-bit integers with scales: half the memory of 16-bit floats.
#define TRIT_KV_INT8 2

// trit_options.state: 32-bit floats.
#define TRIT_STATE_F32 0

// trit_options.state: 16-bit floats.
#define TRIT_STATE_F16 1

// trit_options.weights: copied into memory where there is room, which is fastest.
#define TRIT_WEIGHTS_AUTO 0

// trit_options.weights: mapped from the file. Processes share them. Where somebody cuts the file off meanwhile, the system ends the
// process with SIGBUS.
#define TRIT_WEIGHTS_MAPPED 1

// trit_options.tuning: use the variants of kernels that were found fastest on this machine; time them where nobody has, and write
// the result to the user's folder for caches (trit/kernels.json).
#define TRIT_TUNING_REMEMBERED 0

// trit_options.tuning: time them again, and write the result.
#define TRIT_TUNING_FRESH 1

// trit_options.tuning: time nothing, read nothing, write nothing.
#define TRIT_TUNING_OFF 2

// trit_model_open_memory: the library makes a copy.
#define TRIT_BYTES_COPY 0

// trit_model_open_memory: the library reads the caller's bytes as long as it needs them.
#define TRIT_BYTES_BORROW 1

// trit_generation.top_k: as the model's authors suggest.
#define TRIT_TOP_K_OF_MODEL UINT32_MAX

// trit_generation.seed: another one each time; trit_result says which.
#define TRIT_SEED_RANDOM UINT64_MAX

// trit_result.finish: the model ended its text, or a stop text came.
#define TRIT_FINISH_STOP 0

// trit_result.finish: as many tokens were generated as were asked for.
#define TRIT_FINISH_LENGTH 1

// trit_result.finish: the context is full.
#define TRIT_FINISH_CONTEXT 2

// trit_result.finish: the callback asked for no more.
#define TRIT_FINISH_CALLBACK 3

// trit_result.finish: another thread ended it; the call returned TRIT_ABORTED.
#define TRIT_FINISH_ABORTED 4

// trit_result.finish: an error ended it; the call returned its status.
#define TRIT_FINISH_ERROR 5

// What a call came to. Every call that can fail returns one, and says more through its last argument, `error`.
typedef enum trit_status {
  // It did what it says.
  TRIT_OK = 0,
  // An argument cannot be: a null pointer, a length, text that is no UTF-8, an id outside the vocabulary, an option.
  TRIT_INVALID_ARGUMENT = 1,
  // The system could not open or read the file.
  TRIT_IO = 2,
  // The bytes are no bundle that this version can run, or are damaged.
  TRIT_INVALID_BUNDLE = 3,
  // The bundle's machine code was asked for, and nothing says that it may run.
  TRIT_UNTRUSTED = 4,
  // The kernels that were asked for cannot run on this machine.
  TRIT_NO_KERNELS = 5,
  // The tokens do not fit the context.
  TRIT_CONTEXT_FULL = 6,
  // Another thread ended the call with trit_session_abort.
  TRIT_ABORTED = 7,
  // The system refused memory.
  TRIT_OUT_OF_MEMORY = 8,
  // Another call uses the handle: in another thread, or the one whose callback this is.
  TRIT_BUSY = 9,
  // The buffer has no room. The number of elements that there are was written.
  TRIT_BUFFER_TOO_SMALL = 10,
  // The bundle does not have what was asked for: a tokenizer, a chat template.
  TRIT_UNSUPPORTED = 11,
  // The tokenizer or the chat template could not do its work on this text.
  TRIT_TEXT = 12,
  // The session has no logits after its last token.
  TRIT_NO_LOGITS = 13,
  // The model computed what is no number, or its rules forbid every token.
  TRIT_MODEL = 14,
  // The bundle's file was changed while it was in use.
  TRIT_CHANGED = 15,
  // The system refused something else, such as threads.
  TRIT_SYSTEM = 16,
  // A defect of the library. Close the handles that the call was given.
  TRIT_INTERNAL = 17,
} trit_status;

// Turns ids into text one by one, without splitting a character. One call at a time may use it, in any thread; others get TRIT_BUSY.
typedef struct trit_detokenizer trit_detokenizer;

// What went wrong. It is the caller's, who frees it; any thread may read it.
typedef struct trit_error trit_error;

// An open bundle with the threads that run it. Any number of threads may use one at a time.
typedef struct trit_model trit_model;

// Chooses the tokens of one answer. One call at a time may use it, in any thread; others get TRIT_BUSY.
typedef struct trit_sampler trit_sampler;

// One text with what is needed to continue it. One call at a time may use it, in any thread; others get TRIT_BUSY. Sessions of one
// model may be used at a time: their steps run one after the other, each on all of the model's threads.
typedef struct trit_session trit_session;

// How a bundle is opened, and how its sessions run. trit_options_init sets what is said of each field here; zero is that value of
// every field but size.
typedef struct trit_options {
  // sizeof(trit_options): says which version of this structure it is.
  size_t size;
  // Worker threads. 0: as many as the system grants the process; there are never more.
  uint32_t threads;
  // TRIT_KERNELS_AUTO.
  uint32_t kernels;
  // TRIT_TRUST_BY_RECORD.
  uint32_t trust;
  // TRIT_VERIFY_ALL.
  uint32_t verify;
  // Most tokens of a session. 0: as many as the bundle was compiled for.
  uint32_t context;
  // Element type of the KV caches: TRIT_KV_F16.
  uint32_t kv;
  // Element type of the recurrent state, for models that have one: TRIT_STATE_F32.
  uint32_t state;
  // TRIT_WEIGHTS_AUTO.
  uint32_t weights;
  // TRIT_TUNING_REMEMBERED.
  uint32_t tuning;
  // Not used; 0.
  uint32_t reserved;
  // Files of public keys, each path ending before a NUL. Where there are any, the bundle is opened only if one of these keys signed
  // it, whoever compiled it, and trust stays TRIT_TRUST_BY_RECORD. They are read during the call. Null.
  const char *const *keys;
  // How many these are. 0.
  size_t key_count;
} trit_options;

// What an open bundle is. The pointers are the library's, and are valid until the model's handle is closed.
typedef struct trit_model_info {
  // sizeof(trit_model_info), which the caller sets.
  size_t size;
  // Ids are below this; so many logits there are.
  uint32_t vocab_size;
  // Most tokens of a session.
  uint32_t context_length;
  // Most tokens that the bundle was compiled for.
  uint32_t longest_context;
  // Worker threads that run.
  uint32_t threads;
  // The id that begins a text; TRIT_NO_ID where there is none. trit_tokenize adds it where the model wants it.
  uint32_t bos;
  // Whether there is a chat template: 1 or 0.
  uint32_t has_chat_template;
  // The ids at which generation ends.
  const uint32_t *stop_ids;
  // How many these are.
  size_t stop_id_count;
  // The model's name, as the bundle says it.
  const char *name;
  // Which kernels run, and why they are not others, such as "embedded x86-64-v3".
  const char *kernels;
  // The bundle's digest, 64 hexadecimal digits.
  const char *digest;
} trit_model_info;

// One message of a conversation. Both texts end before a NUL.
typedef struct trit_message {
  // Who speaks: system, user or assistant.
  const char *role;
  // What is said.
  const char *content;
} trit_message;

// How tokens are chosen, and when an answer ends. trit_generation_init sets what is said of each field here. NAN in a float means:
// as the model's authors suggest.
typedef struct trit_generation {
  // sizeof(trit_generation): says which version of this structure it is.
  size_t size;
  // Divides the logits; 0 takes the most probable token always. NAN.
  float temperature;
  // Choose among the most probable tokens that together reach this probability, from 0 to 1; 1: among all. NAN.
  float top_p;
  // Choose among tokens at least this many times as probable as the most probable, from 0 to 1; 0: among all. NAN.
  float min_p;
  // Make tokens that occurred in the text less probable; 1: off. NAN.
  float repeat_penalty;
  // Subtracted from a token's logit for each time that the answer has it, from -2 to 2. NAN.
  float frequency_penalty;
  // Subtracted from a token's logit where the answer has it, from -2 to 2. NAN.
  float presence_penalty;
  // Choose among so many of the most probable tokens; 0: among all. TRIT_TOP_K_OF_MODEL.
  uint32_t top_k;
  // Whether to go on after the model says that it is done: 1 or 0. 0.
  uint32_t ignore_stop_ids;
  // Start of the random sequence, for the same answer again. TRIT_SEED_RANDOM.
  uint64_t seed;
  // Most tokens of the answer. 256.
  size_t max_tokens;
  // Texts that end the answer and are no part of it; each ends before a NUL. They are read during the call. Null.
  const char *const *stop_texts;
  // How many these are. 0.
  size_t stop_text_count;
  // Whether not to draft tokens: 1 or 0. The tokens are the same either way. 0.
  uint32_t no_drafts;
  // Not used; 0.
  uint32_t reserved;
} trit_generation;

// Is given the tokens of an answer, as they are chosen. `id` is the token, or TRIT_NO_ID for text at the end that was held back.
// `text` is the text that became certain with it: whole characters, `length` bytes of UTF-8, often one word and often none, with a
// NUL behind them; it is valid during the call of the function alone. `user` is what trit_session_decode was given.
//
// Returns 0 to go on; anything else ends the answer after this token.
//
// It runs in the thread that called trit_session_decode. It may use other sessions, and the model; its own session and calls that
// close it get TRIT_BUSY. It must return: it must neither throw a C++ exception nor leave by longjmp.
typedef int (*trit_token_callback)(void *user, uint32_t id, const char *text, size_t length);

// How an answer went.
typedef struct trit_result {
  // sizeof(trit_result), which the caller sets.
  size_t size;
  // Why it ended: one of TRIT_FINISH_STOP and the like.
  uint32_t finish;
  // Not used; 0.
  uint32_t reserved;
  // Tokens that were generated. The id that ended the answer is not among them.
  size_t generated;
  // Tokens that ran before the first was chosen.
  size_t prompt_tokens;
  // Tokens drafted.
  size_t drafted;
  // How many of these the model chose too.
  size_t accepted;
  // The seed.
  uint64_t seed;
  // Seconds until the first token could be chosen.
  double prefill_seconds;
  // Seconds after that.
  double decode_seconds;
} trit_result;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, such as "0.1.0". Never null, and never freed. Any thread may call it.
const char *trit_version(void);

// The name of a status, such as "TRIT_IO"; "unknown status" for other numbers. Never null, and never freed. Any thread may call it.
const char *trit_status_name(int status);

// The status of an error; TRIT_OK for null.
enum trit_status trit_error_status(const struct trit_error *error);

// What went wrong, and what can be done about it: one line of UTF-8. It is the error's, and is valid until that is freed; "" for
// null.
const char *trit_error_message(const struct trit_error *error);

// Frees an error and makes the pointer to it null. Null, and a pointer to null, are left as they are.
void trit_error_free(struct trit_error **error);

// Sets every field of the structure to its default. `size` is sizeof(trit_options).
enum trit_status trit_options_init(struct trit_options *options, size_t size, struct trit_error **error);

// Opens the bundle at `path`, which ends before a NUL. `options` may be null. The model is the caller's, who closes it. Any thread
// may call it. The model's threads are started; the file stays open. Where options name keys, the signature is looked for beside the
// file, or in it where it is a program.
//
// TRIT_IO, TRIT_INVALID_BUNDLE, TRIT_UNTRUSTED, TRIT_NO_KERNELS, TRIT_INVALID_ARGUMENT for an option that cannot be, TRIT_CHANGED,
// TRIT_OUT_OF_MEMORY, TRIT_SYSTEM. `*model` is null then.
enum trit_status trit_model_open(const char *path,
                                 const struct trit_options *options,
                                 struct trit_model **model,
                                 struct trit_error **error);

// As trit_model_open, for the bundle in the `length` bytes of an open file from `offset` on; length 0: to the file's end. The caller
// keeps `fd` and may close it after the call; its file position is not moved. The file must be a regular one, open for reading.
// Weights can be mapped where `offset` is a multiple of 64. A bundle that is opened so has no signature: where options name keys, it
// is TRIT_UNTRUSTED.
enum trit_status trit_model_open_fd(int fd,
                                    uint64_t offset,
                                    uint64_t length,
                                    const struct trit_options *options,
                                    struct trit_model **model,
                                    struct trit_error **error);

// As trit_model_open, for the bundle in `length` bytes of memory. With TRIT_BYTES_COPY they are copied. With TRIT_BYTES_BORROW they
// are read where they are: they must stay valid and unchanged until the model and all its sessions, samplers and detokenizers are
// closed. Most of them are copied into memory for kernels either way. As with trit_model_open_fd, there is no signature.
enum trit_status trit_model_open_memory(const void *bytes,
                                        size_t length,
                                        uint32_t bytes_are,
                                        const struct trit_options *options,
                                        struct trit_model **model,
                                        struct trit_error **error);

// Closes a model and makes the pointer to it null. Null, and a pointer to null, are left as they are. Its sessions, samplers and
// detokenizers stay valid, and keep what they need until they are closed. No other call may use this handle meanwhile or later.
void trit_model_close(struct trit_model **model);

// Says what a bundle is. The caller sets info->size to sizeof(trit_model_info) before. What the structure points to is the model's,
// and is valid until that handle is closed. Any thread may call it.
enum trit_status trit_model_describe(const struct trit_model *model,
                                     struct trit_model_info *info,
                                     struct trit_error **error);

// The ids of `length` bytes of UTF-8, which need no NUL. `add_special`, 1 or 0: whether to add what the model wants around a text,
// mostly a token that begins it; not for what trit_chat_prompt gives, and not for what continues a text. Up to `capacity` ids are
// written to `ids`; `*count` is how many there are. Without a buffer (null, 0) only that is said. Any thread may call it.
//
// TRIT_BUFFER_TOO_SMALL, with no ids written; TRIT_UNSUPPORTED where the bundle has no tokenizer; TRIT_TEXT.
enum trit_status trit_tokenize(const struct trit_model *model,
                               const char *text,
                               size_t length,
                               int add_special,
                               uint32_t *ids,
                               size_t capacity,
                               size_t *count,
                               struct trit_error **error);

// The text of `count` ids, with a NUL behind it: `capacity` bytes of `text` are enough where it is larger than `*length`, the bytes of
// UTF-8 that there are. Without a buffer (null, 0) only that is said. `skip_special`, 1 or 0: whether to leave special tokens out.
// Bytes that are no UTF-8 give U+FFFD. Any thread may call it.
//
// TRIT_BUFFER_TOO_SMALL, with no text written; TRIT_INVALID_ARGUMENT for an id outside the vocabulary; TRIT_UNSUPPORTED where the
// bundle has no tokenizer; TRIT_TEXT.
enum trit_status trit_detokenize(const struct trit_model *model,
                                 const uint32_t *ids,
                                 size_t count,
                                 int skip_special,
                                 char *text,
                                 size_t capacity,
                                 size_t *length,
                                 struct trit_error **error);

// The prompt that the model's chat template makes of `count` messages. `add_generation_prompt`, 1 or 0: whether it ends where the
// assistant is to speak. It is tokenized without add_special. The buffer is as for trit_detokenize. Templates run within limits of
// steps, memory and time. Any thread may call it.
//
// TRIT_BUFFER_TOO_SMALL; TRIT_UNSUPPORTED where the bundle has no chat template; TRIT_TEXT where it refuses the conversation.
enum trit_status trit_chat_prompt(const struct trit_model *model,
                                  const struct trit_message *messages,
                                  size_t count,
                                  int add_generation_prompt,
                                  char *text,
                                  size_t capacity,
                                  size_t *length,
                                  struct trit_error **error);

// As trit_chat_prompt, for `json_length` bytes of JSON: a list of messages, or an object with "messages" and perhaps "tools",
// "documents", "add_generation_prompt" (true where it is left out) and "chat_template_kwargs", further variables of the template.
//
// TRIT_INVALID_ARGUMENT where it is no such JSON.
enum trit_status trit_chat_prompt_json(const struct trit_model *model,
                                       const char *json,
                                       size_t json_length,
                                       char *text,
                                       size_t capacity,
                                       size_t *length,
                                       struct trit_error **error);

// Begins to turn ids into text one by one. The first continues `count` ids of `prompt`, whose own text is not given. The detokenizer
// is the caller's, who closes it.
//
// TRIT_UNSUPPORTED where the bundle has no tokenizer; TRIT_INVALID_ARGUMENT for an id outside the vocabulary.
enum trit_status trit_detokenizer_new(const struct trit_model *model,
                                      const uint32_t *prompt,
                                      size_t count,
                                      struct trit_detokenizer **detokenizer,
                                      struct trit_error **error);

// Takes the next id, or TRIT_NO_ID for the end, and gives the text that became certain: whole characters, often one word and often
// none. `*text` is `*length` bytes of UTF-8 with a NUL behind them; it is the detokenizer's, and is valid until its next call. After
// the end, further ids continue the text.
//
// TRIT_INVALID_ARGUMENT for an id outside the vocabulary; TRIT_BUSY; TRIT_TEXT.
enum trit_status trit_detokenizer_push(struct trit_detokenizer *detokenizer,
                                       uint32_t id,
                                       const char **text,
                                       size_t *length,
                                       struct trit_error **error);

// Closes a detokenizer and makes the pointer to it null. Null, and a pointer to null, are left as they are. TRIT_BUSY where a call
// uses it, which it then stays open for.
enum trit_status trit_detokenizer_close(struct trit_detokenizer **detokenizer,
                                        struct trit_error **error);

// Makes an empty session. It is the caller's, who closes it; the model's handle may be closed before.
//
// TRIT_INVALID_ARGUMENT, also in a process that was forked from the one that opened the model: open it again there.
enum trit_status trit_session_new(const struct trit_model *model,
                                  struct trit_session **session,
                                  struct trit_error **error);

// Makes a session with the first `position` tokens of this one. They share memory, and neither sees what the other appends. It has
// no logits until something is appended, and is not aborted where this one is.
//
// TRIT_INVALID_ARGUMENT for a position beyond the session's length; TRIT_BUSY.
enum trit_status trit_session_fork(const struct trit_session *session,
                                   size_t position,
                                   struct trit_session **fork,
                                   struct trit_error **error);

// Closes a session and makes the pointer to it null. Null, and a pointer to null, are left as they are. TRIT_BUSY where a call uses
// it, which it then stays open for: abort that, wait until it has returned, and close again. No other call may begin meanwhile.
enum trit_status trit_session_close(struct trit_session **session,
                                    struct trit_error **error);

// Ends the call that uses the session, and every later one that runs tokens, with TRIT_ABORTED, until trit_session_resume. Any thread
// may call it at any time before the session is closed, a signal handler too; it returns at once. The running call returns after at
// most one step of the model. What it had not finished is taken back: only the tokens that a callback was given stay.
void trit_session_abort(const struct trit_session *session);

// Lets the session run tokens again. Any thread may call it.
void trit_session_resume(const struct trit_session *session);

// How many tokens the session has.
//
// TRIT_BUSY.
enum trit_status trit_session_length(const struct trit_session *session,
                                     size_t *length,
                                     struct trit_error **error);

// The session's tokens. Up to `capacity` are written to `ids`; `*count` is how many there are. Without a buffer (null, 0) only that
// is said.
//
// TRIT_BUFFER_TOO_SMALL, with no ids written; TRIT_BUSY.
enum trit_status trit_session_tokens(const struct trit_session *session,
                                     uint32_t *ids,
                                     size_t capacity,
                                     size_t *count,
                                     struct trit_error **error);

// Appends `count` tokens and runs them. Afterwards the session has the logits after the last.
//
// TRIT_INVALID_ARGUMENT for no tokens and for an id outside the vocabulary; TRIT_CONTEXT_FULL; TRIT_ABORTED; TRIT_BUSY; TRIT_MODEL;
// TRIT_CHANGED; TRIT_OUT_OF_MEMORY. The session's tokens are as before then.
enum trit_status trit_session_prefill(struct trit_session *session,
                                      const uint32_t *ids,
                                      size_t count,
                                      struct trit_error **error);

// Appends one token and runs it: trit_session_prefill for one.
enum trit_status trit_session_append(struct trit_session *session, uint32_t id, struct trit_error **error);

// Makes the session's tokens these `count`, and runs those that it has not run: for conversations, whose next prompt begins with most
// of what was said. `*kept` (may be null) is how many did not have to run. Otherwise as trit_session_prefill; where it fails, the
// session has the tokens that both texts begin with.
enum trit_status trit_session_set(struct trit_session *session,
                                  const uint32_t *ids,
                                  size_t count,
                                  size_t *kept,
                                  struct trit_error **error);

// Forgets all but the first `position` tokens. The session then has no logits, unless that is all of them.
//
// TRIT_INVALID_ARGUMENT for a position beyond the session's length; TRIT_BUSY.
enum trit_status trit_session_truncate(struct trit_session *session,
                                       size_t position,
                                       struct trit_error **error);

// Copies the logits after the last token: as many floats as the vocabulary has tokens. `*count` is how many there are; without a
// buffer (null, 0) only that is said.
//
// TRIT_NO_LOGITS where the last call that changed the session was no trit_session_prefill, append or set; TRIT_BUFFER_TOO_SMALL;
// TRIT_BUSY.
enum trit_status trit_session_logits(const struct trit_session *session,
                                     float *logits,
                                     size_t capacity,
                                     size_t *count,
                                     struct trit_error **error);

// Sets every field of the structure to its default. `size` is sizeof(trit_generation).
enum trit_status trit_generation_init(struct trit_generation *generation,
                                      size_t size,
                                      struct trit_error **error);

// Generates an answer after the session's tokens, which get those of the answer, and calls `callback` with each as it is chosen.
// `generation` may be null, for the defaults; `user` is handed to the callback; `result` may be null; where it is not, its size is
// set by the caller, and it is filled in whenever an answer began, also where that failed. Where the session has no logits, its last
// token runs again first. An id at which the answer ends is no part of it and of the session; a stop text is no part of the
// texts, but its tokens stay in the session.
//
// The texts, joined, are the answer's whole text. The same session, options and seed give the same tokens again.
//
// TRIT_INVALID_ARGUMENT for an option that cannot be and for an empty session; TRIT_ABORTED; TRIT_BUSY; TRIT_MODEL; TRIT_CHANGED;
// TRIT_OUT_OF_MEMORY; TRIT_UNSUPPORTED for stop texts where the bundle has no tokenizer. The session has the tokens that the callback
// was given. An answer that fills the context is no error.
enum trit_status trit_session_decode(struct trit_session *session,
                                     const struct trit_generation *generation,
                                     trit_token_callback callback,
                                     void *user,
                                     struct trit_result *result,
                                     struct trit_error **error);

// Makes what chooses the tokens of one answer, for programs that append them themselves. `generation` may be null; what it says of the
// answer's end has no meaning here. The sampler is the caller's, who closes it.
//
// TRIT_INVALID_ARGUMENT for an option that cannot be.
enum trit_status trit_sampler_new(const struct trit_model *model,
                                  const struct trit_generation *generation,
                                  struct trit_sampler **sampler,
                                  struct trit_error **error);

// Chooses a token after the session's, and does not append it. The answer begins where the session is at the first call. `logits` are
// `count` floats to choose by, one for each token, as a program has changed them; null: the session's own. Logits that are not finite
// are never chosen. Whether the id ends the answer is for the caller to see: trit_model_info has the stop ids.
//
// TRIT_NO_LOGITS; TRIT_INVALID_ARGUMENT where there are not as many logits as tokens; TRIT_MODEL where every token is forbidden;
// TRIT_BUSY.
enum trit_status trit_sampler_choose(struct trit_sampler *sampler,
                                     const struct trit_session *session,
                                     const float *logits,
                                     size_t count,
                                     uint32_t *id,
                                     struct trit_error **error);

// Closes a sampler and makes the pointer to it null. Null, and a pointer to null, are left as they are. TRIT_BUSY where a call uses
// it, which it then stays open for.
enum trit_status trit_sampler_close(struct trit_sampler **sampler,
                                    struct trit_error **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRIT_H */
