/* Calls every function of trit.h, and provokes every error that a caller can. usage: interface BUNDLE IDS-ONLY-BUNDLE KEY
   OTHER-KEY; the first key signed the first bundle. */
#define _POSIX_C_SOURCE 200809L
#include "expect.h"

static const char *bundle;
static const char *ids_only;
/* Files of public keys: of who signed the bundle, and of somebody else. */
static const char *signer, *stranger;
/* What the model says after PROMPT, from trit_session_decode. */
static char whole[4096];
static uint32_t answer[64];
static size_t answer_count;
#define PROMPT "Once upon a time there was a king"

static trit_options options(void) {
    trit_options options;
    OK(trit_options_init(&options, sizeof options, &error));
    options.kernels = TRIT_KERNELS_PORTABLE;
    options.tuning = TRIT_TUNING_OFF;
    return options;
}

static trit_model *opened(void) {
    trit_options how = options();
    trit_model *model = NULL;
    OK(trit_model_open(bundle, &how, &model, &error));
    return model;
}

/* The ids of PROMPT. */
static size_t prompt(const trit_model *model, uint32_t *ids, size_t capacity) {
    size_t count = 0;
    OK(trit_tokenize(model, PROMPT, strlen(PROMPT), 1, ids, capacity, &count, &error));
    return count;
}

static trit_session *prefilled(const trit_model *model) {
    trit_session *session = NULL;
    uint32_t ids[64];
    size_t count = prompt(model, ids, 64);
    OK(trit_session_new(model, &session, &error));
    OK(trit_session_prefill(session, ids, count, &error));
    return session;
}

static trit_generation greedy(size_t most) {
    trit_generation generation;
    OK(trit_generation_init(&generation, sizeof generation, &error));
    generation.temperature = 0;
    generation.max_tokens = most;
    return generation;
}

/* ---- callbacks */

struct heard {
    char text[4096];
    size_t length;
    uint32_t ids[64];
    size_t count;
    size_t stop_after;       /* 0: never */
    trit_session *session;   /* to disturb from within the callback */
    trit_model *model;
    int abort;
};

static int hear(void *user, uint32_t id, const char *text, size_t length) {
    struct heard *heard = user;
    EXPECT(strlen(text) == length && heard->length + length < sizeof heard->text);
    memcpy(heard->text + heard->length, text, length);
    heard->length += length;
    if (id != TRIT_NO_ID) {
        EXPECT(heard->count < 64);
        heard->ids[heard->count++] = id;
    }
    if (heard->session != NULL) {
        /* The session is in use, and says so to everybody, this thread too; the rest of the interface works. */
        trit_session *copy = heard->session, *fork = NULL;
        size_t size = 0;
        uint32_t one = 0;
        FAILS(TRIT_BUSY, trit_session_close(&copy, &error));
        EXPECT(copy == heard->session);
        FAILS(TRIT_BUSY, trit_session_append(heard->session, 1, &error));
        FAILS(TRIT_BUSY, trit_session_set(heard->session, &one, 1, NULL, &error));
        FAILS(TRIT_BUSY, trit_session_truncate(heard->session, 0, &error));
        FAILS(TRIT_BUSY, trit_session_length(heard->session, &size, &error));
        FAILS(TRIT_BUSY, trit_session_tokens(heard->session, NULL, 0, &size, &error));
        FAILS(TRIT_BUSY, trit_session_logits(heard->session, NULL, 0, &size, &error));
        FAILS(TRIT_BUSY, trit_session_fork(heard->session, 0, &fork, &error));
        FAILS(TRIT_BUSY, trit_session_decode(heard->session, NULL, hear, heard, NULL, &error));
        OK(trit_tokenize(heard->model, "x", 1, 0, NULL, 0, &size, &error));
    }
    if (heard->abort) trit_session_abort(heard->session);
    return heard->stop_after != 0 && heard->count >= heard->stop_after;
}

/* ---- the parts */

static void constants(void) {
    int status;
    trit_error *none = NULL;
    EXPECT(strlen(trit_version()) >= 5);
    for (status = TRIT_OK; status <= TRIT_INTERNAL; status++) {
        EXPECT(strncmp(trit_status_name(status), "TRIT_", 5) == 0);
    }
    EXPECT(strcmp(trit_status_name(TRIT_UNTRUSTED), "TRIT_UNTRUSTED") == 0);
    EXPECT(strcmp(trit_status_name(-1), "unknown status") == 0);
    EXPECT(trit_error_status(NULL) == TRIT_OK && strcmp(trit_error_message(NULL), "") == 0);
    trit_error_free(NULL);
    trit_error_free(&none);
}

/* Structures of other versions than the library's. */
static void sizes(void) {
    struct {
        trit_options known;
        unsigned char later[24];
    } newer;
    trit_options how;
    trit_model *model = NULL;
    trit_generation generation;

    FAILS(TRIT_INVALID_ARGUMENT, trit_options_init(NULL, sizeof how, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_options_init(&how, 1, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_options_init(&how, (size_t)-1, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_generation_init(NULL, sizeof generation, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_generation_init(&generation, 0, &error));

    memset(&newer, 0xff, sizeof newer);
    OK(trit_options_init(&newer.known, sizeof newer, &error));
    EXPECT(newer.known.size == sizeof newer && newer.later[0] == 0 && newer.later[23] == 0);
    newer.known.kernels = TRIT_KERNELS_PORTABLE;
    newer.known.tuning = TRIT_TUNING_OFF;
    OK(trit_model_open(bundle, &newer.known, &model, &error));
    trit_model_close(&model);
    newer.later[20] = 1;
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open(bundle, &newer.known, &model, &error));
    SAID("newer library");

    /* A program from before there were keys: what stands behind its structure is not read. */
    memset(&how, 0xff, sizeof how);
    OK(trit_options_init(&how, offsetof(trit_options, keys), &error));
    EXPECT(how.key_count == (size_t)-1);
    how.kernels = TRIT_KERNELS_PORTABLE;
    how.tuning = TRIT_TUNING_OFF;
    OK(trit_model_open(bundle, &how, &model, &error));
    trit_model_close(&model);

    /* An older program: the fields that it lacks are as by default. */
    memset(&how, 0xff, sizeof how);
    OK(trit_options_init(&how, offsetof(trit_options, verify), &error));
    EXPECT(how.verify == 0xffffffffu && how.trust == TRIT_TRUST_BY_RECORD);
    how.kernels = TRIT_KERNELS_PORTABLE;
    OK(trit_model_open(bundle, &how, &model, &error));
    trit_model_close(&model);

    /* Nobody initialized it. */
    memset(&how, 0, sizeof how);
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open(bundle, &how, &model, &error));
    SAID("trit_options_init");
    memset(&how, 0xff, sizeof how);
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open(bundle, &how, &model, &error));
    EXPECT(model == NULL);
}

/* Bundles that are opened only if one of some keys signed them. */
static void keys(void) {
    trit_options how = options();
    trit_model *model = NULL;
    trit_status status;
    const char *both[2];
    size_t length = 0;
    unsigned char *bytes = read_file(bundle, &length);
    int fd;

    both[0] = stranger;
    both[1] = signer;
    how.keys = both;
    how.key_count = 2;
    OK(trit_model_open(bundle, &how, &model, &error));
    trit_model_close(&model);
    /* Its code runs too, but for the CPU that valgrind shows. */
    how.kernels = TRIT_KERNELS_EMBEDDED;
    status = trit_model_open(bundle, &how, &model, NULL);
    EXPECT(status == TRIT_OK || status == TRIT_NO_KERNELS);
    trit_model_close(&model);
    how.kernels = TRIT_KERNELS_PORTABLE;
    how.key_count = 1;
    FAILS(TRIT_UNTRUSTED, trit_model_open(bundle, &how, &model, &error));
    SAID(bundle);
    SAID("name its file in keys");
    EXPECT(model == NULL);
    how.key_count = 2;
    FAILS(TRIT_UNTRUSTED, trit_model_open(ids_only, &how, &model, &error));
    SAID(".sig");
    /* There is no file beside these. */
    FAILS(TRIT_UNTRUSTED, trit_model_open_memory(bytes, length, TRIT_BYTES_COPY, &how, &model, &error));
    fd = open_behind(bytes, length, 64);
    FAILS(TRIT_UNTRUSTED, trit_model_open_fd(fd, 64, 0, &how, &model, &error));
    SAID("by its path");
    EXPECT(close(fd) == 0);
    free(bytes);

    both[1] = "/no/such/key.pub";
    FAILS(TRIT_IO, trit_model_open(bundle, &how, &model, &error));
    SAID("/no/such/key.pub");
    both[1] = bundle;
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open(bundle, &how, &model, &error));
    SAID(bundle);
    both[1] = NULL;
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open(bundle, &how, &model, &error));
    SAID("keys[1]");
    both[1] = signer;
    how.trust = TRIT_TRUST_ALWAYS;
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open(bundle, &how, &model, &error));
    how.trust = TRIT_TRUST_BY_RECORD;
    how.keys = NULL;
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open(bundle, &how, &model, &error));
    SAID("keys");
}

static void opening(void) {
    trit_options how = options();
    trit_model *model = NULL;
    trit_model_info info;
    size_t length = 0, at;
    unsigned char *bytes = read_file(bundle, &length);
    unsigned char *shifted;
    int fd;

    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open(NULL, &how, &model, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open(bundle, &how, NULL, &error));
    FAILS(TRIT_IO, trit_model_open("/no/such/file.trit", &how, &model, &error));
    SAID("/no/such/file.trit");
    FAILS(TRIT_IO, trit_model_open("/", &how, &model, &error));
    EXPECT(model == NULL);
    /* Nobody wants to hear it. */
    EXPECT(trit_model_open("/no/such/file.trit", &how, &model, NULL) == TRIT_IO);

    for (at = 0; at < 8; at++) {
        trit_options bad = how;
        uint32_t *field = &bad.threads + at + 1;
        if (field == &bad.context) continue;
        *field = 77;
        FAILS(TRIT_INVALID_ARGUMENT, trit_model_open(bundle, &bad, &model, &error));
        SAID("77");
    }
    how.context = 0x7fffffff;
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open(bundle, &how, &model, &error));
    SAID("context");
    how = options();
    how.kernels = TRIT_KERNELS_EMBEDDED;
    how.trust = TRIT_TRUST_NEVER;
    FAILS(TRIT_UNTRUSTED, trit_model_open(bundle, &how, &model, &error));
    SAID("TRIT_TRUST_ALWAYS");

    /* From a descriptor, which stays the caller's, behind something else. */
    how = options();
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open_fd(-1, 0, 0, &how, &model, &error));
    FAILS(TRIT_IO, trit_model_open_fd(987, 0, 0, &how, &model, &error));
    fd = open_behind(bytes, length, 4096);
    OK(trit_model_open_fd(fd, 4096, length, &how, &model, &error));
    trit_model_close(&model);
    OK(trit_model_open_fd(fd, 4096, 0, &how, &model, &error));
    EXPECT(lseek(fd, 0, SEEK_CUR) == (off_t)(4096 + length) && close(fd) == 0);
    info.size = sizeof info;
    OK(trit_model_describe(model, &info, &error));
    EXPECT(info.vocab_size == 4096 && info.stop_id_count == 2 && info.bos == 4093 && info.has_chat_template == 1);
    EXPECT(info.threads >= 1 && info.context_length == info.longest_context);
    EXPECT(strcmp(info.name, "fables-12m") == 0 && strncmp(info.kernels, "portable", 8) == 0 && strlen(info.digest) == 64);
    EXPECT(info.stop_ids[0] < info.vocab_size);
    /* An older program's structure is not written beyond its end. */
    memset(&info, 0xff, sizeof info);
    info.size = offsetof(trit_model_info, threads);
    OK(trit_model_describe(model, &info, &error));
    EXPECT(info.longest_context != 0xffffffffu && info.threads == 0xffffffffu);
    info.size = 0;
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_describe(model, &info, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_describe(model, NULL, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_describe(NULL, &info, &error));
    SAID("closed");
    trit_model_close(&model);
    EXPECT(model == NULL);
    trit_model_close(&model);
    trit_model_close(NULL);
    fd = open_behind(bytes, length, 0);
    FAILS(TRIT_IO, trit_model_open_fd(fd, 0, length + 1, &how, &model, &error));
    FAILS(TRIT_IO, trit_model_open_fd(fd, UINT64_MAX, 2, &how, &model, &error));
    FAILS(TRIT_INVALID_BUNDLE, trit_model_open_fd(fd, 1, 0, &how, &model, &error));
    close(fd);
    fd = open("/dev/null", O_RDONLY);
    FAILS(TRIT_IO, trit_model_open_fd(fd, 0, 0, &how, &model, &error));
    SAID("regular");
    close(fd);

    /* From memory. */
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open_memory(NULL, length, TRIT_BYTES_COPY, &how, &model, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open_memory(bytes, (size_t)-1, TRIT_BYTES_COPY, &how, &model, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_model_open_memory(bytes, length, 7, &how, &model, &error));
    FAILS(TRIT_INVALID_BUNDLE, trit_model_open_memory(bytes, 0, TRIT_BYTES_COPY, &how, &model, &error));
    FAILS(TRIT_INVALID_BUNDLE, trit_model_open_memory(bytes, 100, TRIT_BYTES_COPY, &how, &model, &error));
    FAILS(TRIT_INVALID_BUNDLE, trit_model_open_memory("no bundle at all", 16, TRIT_BYTES_BORROW, &how, &model, &error));
    shifted = malloc(length + 1);
    EXPECT(shifted != NULL);
    memcpy(shifted + 1, bytes, length);
    OK(trit_model_open_memory(shifted + 1, length, TRIT_BYTES_BORROW, &how, &model, &error));
    trit_model_close(&model);
    OK(trit_model_open_memory(shifted + 1, length, TRIT_BYTES_COPY, &how, &model, &error));
    free(shifted);
    {
        /* Of the copy alone. */
        trit_session *session = prefilled(model);
        trit_model_close(&model);
        OK(trit_session_append(session, 5, &error));
        OK(trit_session_close(&session, &error));
    }
    bytes[length / 2] ^= 1;
    FAILS(TRIT_INVALID_BUNDLE, trit_model_open_memory(bytes, length, TRIT_BYTES_BORROW, &how, &model, &error));
    free(bytes);
}

static void texts(const trit_model *model) {
    uint32_t ids[64], beyond = 4096;
    char text[256];
    size_t count = 9, length = 9;
    trit_detokenizer *stream = NULL;
    const char *piece = NULL;
    size_t at;
    static const char smile[] = "a \xf0\x9f\x99\x82 b";

    OK(trit_tokenize(model, PROMPT, strlen(PROMPT), 1, NULL, 0, &count, &error));
    EXPECT(count > 3 && count < 64);
    FAILS(TRIT_BUFFER_TOO_SMALL, trit_tokenize(model, PROMPT, strlen(PROMPT), 1, ids, count - 1, &length, &error));
    EXPECT(length == count);
    OK(trit_tokenize(model, PROMPT, strlen(PROMPT), 1, ids, count, &count, &error));
    EXPECT(ids[0] == 4093);
    OK(trit_tokenize(model, NULL, 0, 0, ids + 40, 1, &length, &error));
    EXPECT(length == 0);
    FAILS(TRIT_INVALID_ARGUMENT, trit_tokenize(NULL, "a", 1, 1, ids, 64, &length, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_tokenize(model, NULL, 1, 1, ids, 64, &length, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_tokenize(model, "a", (size_t)-1, 1, ids, 64, &length, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_tokenize(model, "a", 1, 1, NULL, 64, &length, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_tokenize(model, "a", 1, 1, ids, 64, NULL, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_tokenize(model, "ab\xff", 3, 1, ids, 64, &length, &error));
    SAID("byte 2");

    OK(trit_detokenize(model, ids, count, 1, NULL, 0, &length, &error));
    EXPECT(length == strlen(PROMPT));
    FAILS(TRIT_BUFFER_TOO_SMALL, trit_detokenize(model, ids, count, 1, text, length, &length, &error));
    OK(trit_detokenize(model, ids, count, 1, text, length + 1, &length, &error));
    EXPECT(strcmp(text, PROMPT) == 0);
    OK(trit_detokenize(model, ids, count, 0, text, sizeof text, &length, &error));
    EXPECT(length > strlen(PROMPT));
    OK(trit_detokenize(model, NULL, 0, 0, text, sizeof text, &length, &error));
    EXPECT(length == 0 && text[0] == 0);
    FAILS(TRIT_INVALID_ARGUMENT, trit_detokenize(model, &beyond, 1, 1, text, sizeof text, &length, &error));
    SAID("4096");
    FAILS(TRIT_INVALID_ARGUMENT, trit_detokenize(model, NULL, 1, 1, text, sizeof text, &length, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_detokenize(model, (uint32_t *)(void *)((char *)ids + 1), 1, 1, text, sizeof text, &length, &error));
    SAID("aligned");
    FAILS(TRIT_INVALID_ARGUMENT, trit_detokenize(model, ids, (size_t)-1 / 2, 1, text, sizeof text, &length, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_detokenize(NULL, ids, 1, 1, text, sizeof text, &length, &error));

    /* One by one; a character of several tokens comes whole. */
    OK(trit_tokenize(model, smile, strlen(smile), 0, ids, 64, &count, &error));
    OK(trit_detokenizer_new(model, NULL, 0, &stream, &error));
    text[0] = 0;
    for (at = 0; at <= count; at++) {
        OK(trit_detokenizer_push(stream, at < count ? ids[at] : TRIT_NO_ID, &piece, &length, &error));
        EXPECT(strlen(piece) == length && (piece[0] & 0xc0) != 0x80);
        strcat(text, piece);
    }
    EXPECT(strcmp(text, smile) == 0);
    FAILS(TRIT_INVALID_ARGUMENT, trit_detokenizer_push(stream, 4096, &piece, &length, &error));
    EXPECT(length == 0 && strcmp(piece, "") == 0);
    FAILS(TRIT_INVALID_ARGUMENT, trit_detokenizer_push(stream, 1, NULL, &length, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_detokenizer_push(stream, 1, &piece, NULL, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_detokenizer_push(NULL, 1, &piece, &length, &error));
    OK(trit_detokenizer_close(&stream, &error));
    EXPECT(stream == NULL);
    OK(trit_detokenizer_close(&stream, &error));
    OK(trit_detokenizer_close(NULL, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_detokenizer_new(model, &beyond, 1, &stream, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_detokenizer_new(model, NULL, 1, &stream, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_detokenizer_new(model, ids, 1, NULL, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_detokenizer_new(NULL, ids, 1, &stream, &error));
}

static void chats(const trit_model *model) {
    trit_message messages[2] = {{"system", "Be brief."}, {"user", "A fable, please"}};
    char plain[512], json[512];
    size_t length = 0, other = 0;
    const char *same = "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, "
                       "{\"role\": \"user\", \"content\": \"A fable, please\"}]}";
    const char *list = "[{\"role\": \"user\", \"content\": \"Hi\"}]";

    OK(trit_chat_prompt(model, messages, 2, 1, NULL, 0, &length, &error));
    FAILS(TRIT_BUFFER_TOO_SMALL, trit_chat_prompt(model, messages, 2, 1, plain, length, &other, &error));
    OK(trit_chat_prompt(model, messages, 2, 1, plain, sizeof plain, &length, &error));
    EXPECT(strstr(plain, "A fable, please") != NULL && strlen(plain) == length);
    OK(trit_chat_prompt(model, messages, 2, 0, json, sizeof json, &other, &error));
    EXPECT(other < length && strncmp(plain, json, other) == 0);
    OK(trit_chat_prompt_json(model, same, strlen(same), json, sizeof json, &other, &error));
    EXPECT(strcmp(plain, json) == 0);
    OK(trit_chat_prompt_json(model, list, strlen(list), json, sizeof json, &other, &error));
    FAILS(TRIT_BUFFER_TOO_SMALL, trit_chat_prompt_json(model, list, strlen(list), json, 3, &other, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_chat_prompt_json(model, "{", 1, json, sizeof json, &other, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_chat_prompt_json(model, NULL, 1, json, sizeof json, &other, &error));
    FAILS(TRIT_TEXT, trit_chat_prompt_json(model, "[1]", 3, json, sizeof json, &other, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_chat_prompt(model, NULL, 1, 1, json, sizeof json, &other, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_chat_prompt(NULL, messages, 1, 1, json, sizeof json, &other, &error));
    messages[1].content = NULL;
    FAILS(TRIT_INVALID_ARGUMENT, trit_chat_prompt(model, messages, 2, 1, json, sizeof json, &other, &error));
    SAID("messages[1].content");
    messages[1].content = "ok";
    messages[0].role = "\xff";
    FAILS(TRIT_INVALID_ARGUMENT, trit_chat_prompt(model, messages, 2, 1, json, sizeof json, &other, &error));
    SAID("messages[0].role");
}

static void running(const trit_model *model) {
    trit_session *session = NULL, *fork = NULL;
    uint32_t ids[64], held[64], beyond = 4096;
    float *logits = malloc(4096 * sizeof *logits), *others = malloc(4096 * sizeof *others);
    size_t count = prompt(model, ids, 64), length = 0, kept = 0, at, best = 0;

    EXPECT(logits != NULL && others != NULL);
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_new(NULL, &session, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_new(model, NULL, &error));
    OK(trit_session_new(model, &session, &error));
    OK(trit_session_length(session, &length, &error));
    EXPECT(length == 0);
    FAILS(TRIT_NO_LOGITS, trit_session_logits(session, logits, 4096, &length, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_prefill(session, ids, 0, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_prefill(session, NULL, 3, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_prefill(session, &beyond, 1, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_prefill(NULL, ids, count, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_append(session, TRIT_NO_ID, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_append(NULL, 1, &error));
    OK(trit_session_prefill(session, ids, count - 1, &error));
    OK(trit_session_append(session, ids[count - 1], &error));
    OK(trit_session_length(session, &length, &error));
    EXPECT(length == count);
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_length(session, NULL, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_length(NULL, &length, &error));
    OK(trit_session_tokens(session, held, 64, &length, &error));
    EXPECT(length == count && memcmp(held, ids, count * sizeof *ids) == 0);
    FAILS(TRIT_BUFFER_TOO_SMALL, trit_session_tokens(session, held, count - 1, &length, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_tokens(NULL, held, 64, &length, &error));

    OK(trit_session_logits(session, NULL, 0, &length, &error));
    EXPECT(length == 4096);
    FAILS(TRIT_BUFFER_TOO_SMALL, trit_session_logits(session, logits, 4095, &length, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_logits(session, logits, 4096, NULL, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_logits(NULL, logits, 4096, &length, &error));
    OK(trit_session_logits(session, logits, 4096, &length, &error));
    for (at = 0; at < 4096; at++) {
        if (logits[at] > logits[best]) best = at;
    }
    EXPECT(best == answer[0]);

    /* A fork goes its own way. */
    OK(trit_session_fork(session, count, &fork, &error));
    FAILS(TRIT_NO_LOGITS, trit_session_logits(fork, others, 4096, &length, &error));
    OK(trit_session_append(fork, 7, &error));
    OK(trit_session_length(session, &length, &error));
    EXPECT(length == count);
    OK(trit_session_truncate(fork, count - 1, &error));
    FAILS(TRIT_NO_LOGITS, trit_session_logits(fork, others, 4096, &length, &error));
    SAID("append");
    OK(trit_session_append(fork, ids[count - 1], &error));
    OK(trit_session_logits(fork, others, 4096, &length, &error));
    EXPECT(memcmp(logits, others, 4096 * sizeof *logits) == 0);
    OK(trit_session_close(&fork, &error));
    EXPECT(fork == NULL);
    OK(trit_session_close(&fork, &error));
    OK(trit_session_close(NULL, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_fork(session, count + 1, &fork, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_fork(session, 0, NULL, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_fork(NULL, 0, &fork, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_truncate(session, count + 1, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_truncate(NULL, 0, &error));

    /* What both texts begin with stays. */
    OK(trit_session_set(session, ids, count, &kept, &error));
    EXPECT(kept == count);
    held[count - 1] = 9;
    OK(trit_session_set(session, held, count, &kept, &error));
    EXPECT(kept == count - 1);
    OK(trit_session_set(session, ids, count, NULL, &error));
    OK(trit_session_logits(session, others, 4096, &length, &error));
    EXPECT(memcmp(logits, others, 4096 * sizeof *logits) == 0);
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_set(session, ids, 0, &kept, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_set(session, &beyond, 1, &kept, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_set(NULL, ids, count, &kept, &error));
    OK(trit_session_length(session, &length, &error));
    EXPECT(length == count);

    /* While it is set, nothing runs. */
    trit_session_abort(session);
    FAILS(TRIT_ABORTED, trit_session_append(session, 1, &error));
    SAID("trit_session_resume");
    OK(trit_session_length(session, &length, &error));
    EXPECT(length == count);
    trit_session_resume(session);
    OK(trit_session_append(session, 1, &error));
    trit_session_abort(NULL);
    trit_session_resume(NULL);
    OK(trit_session_close(&session, &error));
    free(logits);
    free(others);
}

static void decoding(trit_model *model) {
    trit_session *session = prefilled(model), *fork = NULL;
    trit_generation how = greedy(12);
    trit_result result;
    struct heard heard = {0};
    const char *stops[2] = {NULL, NULL};
    char stop[8] = {0};
    uint32_t ids[64];
    size_t length = 0, start = 0;

    OK(trit_session_length(session, &start, &error));
    result.size = sizeof result;
    OK(trit_session_decode(session, &how, hear, &heard, &result, &error));
    EXPECT(result.finish == TRIT_FINISH_LENGTH && result.generated == 12 && heard.count == 12);
    EXPECT(result.prompt_tokens == 0 && result.prefill_seconds >= 0 && result.decode_seconds > 0);
    memcpy(whole, heard.text, sizeof whole);
    memcpy(answer, heard.ids, sizeof answer);
    answer_count = heard.count;
    OK(trit_session_tokens(session, ids, 64, &length, &error));
    EXPECT(length == start + 12 && memcmp(ids + start, answer, 12 * sizeof *ids) == 0);

    /* Halves go together as the whole, whether or not drafts are made; what was generated is part of the text. */
    OK(trit_session_truncate(session, start, &error));
    memset(&heard, 0, sizeof heard);
    how.max_tokens = 5;
    OK(trit_session_decode(session, &how, hear, &heard, NULL, &error));
    FAILS(TRIT_NO_LOGITS, trit_session_logits(session, NULL, 0, &length, &error));
    OK(trit_session_fork(session, start + 5, &fork, &error));
    how.max_tokens = 7;
    how.no_drafts = 1;
    OK(trit_session_decode(fork, &how, hear, &heard, &result, &error));
    EXPECT(heard.count == 12 && memcmp(heard.ids, answer, 12 * sizeof *ids) == 0);
    EXPECT(strcmp(heard.text, whole) == 0);
    OK(trit_session_close(&fork, &error));

    /* The callback ends it. */
    OK(trit_session_truncate(session, start, &error));
    memset(&heard, 0, sizeof heard);
    heard.stop_after = 3;
    how = greedy(12);
    OK(trit_session_decode(session, &how, hear, &heard, &result, &error));
    EXPECT(result.finish == TRIT_FINISH_CALLBACK && result.generated == 3 && heard.count == 3);
    OK(trit_session_length(session, &length, &error));
    EXPECT(length == start + 3);

    /* A stop text ends it, and is not heard. */
    OK(trit_session_truncate(session, start, &error));
    memset(&heard, 0, sizeof heard);
    memcpy(stop, whole + 6, 3);
    stops[0] = "never said, that";
    stops[1] = stop;
    how.stop_texts = stops;
    how.stop_text_count = 2;
    OK(trit_session_decode(session, &how, hear, &heard, &result, &error));
    EXPECT(result.finish == TRIT_FINISH_STOP && heard.length <= 6 && strncmp(heard.text, whole, heard.length) == 0);
    EXPECT(strstr(heard.text, stop) == NULL);
    stops[1] = "";
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_decode(session, &how, hear, &heard, &result, &error));
    stops[1] = NULL;
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_decode(session, &how, hear, &heard, &result, &error));
    SAID("stop_texts[1]");
    how.stop_texts = NULL;
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_decode(session, &how, hear, &heard, &result, &error));

    /* Sampling: the same seed, the same text; a seed of the library's is told. */
    {
        struct heard first = {0}, second = {0};
        trit_generation random;
        OK(trit_generation_init(&random, sizeof random, &error));
        random.temperature = 1.0f;
        random.top_k = 50;
        random.top_p = 0.95f;
        random.min_p = 0.01f;
        random.repeat_penalty = 1.1f;
        random.frequency_penalty = 0.1f;
        random.presence_penalty = 0.1f;
        random.max_tokens = 8;
        OK(trit_session_truncate(session, start, &error));
        OK(trit_session_decode(session, &random, hear, &first, &result, &error));
        EXPECT(result.seed != TRIT_SEED_RANDOM);
        random.seed = result.seed;
        OK(trit_session_truncate(session, start, &error));
        OK(trit_session_decode(session, &random, hear, &second, &result, &error));
        EXPECT(result.seed == random.seed && strcmp(first.text, second.text) == 0 && first.count == second.count);
        random.temperature = -1;
        FAILS(TRIT_INVALID_ARGUMENT, trit_session_decode(session, &random, hear, &second, NULL, &error));
        SAID("temperature");
        random = greedy(1);
        random.ignore_stop_ids = 2;
        FAILS(TRIT_INVALID_ARGUMENT, trit_session_decode(session, &random, hear, &second, NULL, &error));
    }

    /* From within the callback. */
    OK(trit_session_truncate(session, start, &error));
    memset(&heard, 0, sizeof heard);
    heard.session = session;
    heard.model = model;
    how = greedy(2);
    OK(trit_session_decode(session, &how, hear, &heard, &result, &error));
    EXPECT(result.generated == 2);
    OK(trit_session_truncate(session, start, &error));
    memset(&heard, 0, sizeof heard);
    heard.session = session;
    heard.model = model;
    heard.abort = 1;
    how = greedy(12);
    how.no_drafts = 1;
    FAILS(TRIT_ABORTED, trit_session_decode(session, &how, hear, &heard, &result, &error));
    EXPECT(result.finish == TRIT_FINISH_ABORTED && result.generated == 1 && heard.count == 1);
    heard.session = NULL;
    heard.abort = 0;
    FAILS(TRIT_ABORTED, trit_session_decode(session, &how, hear, &heard, &result, &error));
    EXPECT(result.generated == 0);
    trit_session_resume(session);
    how.max_tokens = 11;
    OK(trit_session_decode(session, &how, hear, &heard, &result, &error));
    EXPECT(memcmp(heard.ids, answer, 12 * sizeof *ids) == 0 && strcmp(heard.text, whole) == 0);
    how.max_tokens = 0;
    OK(trit_session_decode(session, &how, hear, &heard, &result, &error));
    EXPECT(result.finish == TRIT_FINISH_LENGTH && result.generated == 0);

    FAILS(TRIT_INVALID_ARGUMENT, trit_session_decode(NULL, &how, hear, &heard, &result, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_decode(session, &how, NULL, &heard, &result, &error));
    result.size = 3;
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_decode(session, &how, hear, &heard, &result, &error));
    OK(trit_session_close(&session, &error));
    OK(trit_session_new(model, &session, &error));
    result.size = sizeof result;
    FAILS(TRIT_INVALID_ARGUMENT, trit_session_decode(session, NULL, hear, &heard, &result, &error));
    SAID("empty");
    OK(trit_session_close(&session, &error));
}

static void sampling(const trit_model *model) {
    trit_session *session = prefilled(model);
    trit_generation how = greedy(1);
    trit_sampler *sampler = NULL;
    uint32_t id = 0;
    size_t at, count = 0;
    float *logits = malloc(4096 * sizeof *logits);

    EXPECT(logits != NULL);
    OK(trit_sampler_new(model, &how, &sampler, &error));
    for (at = 0; at < 5; at++) {
        OK(trit_sampler_choose(sampler, session, NULL, 0, &id, &error));
        EXPECT(id == answer[at]);
        OK(trit_session_append(session, id, &error));
    }
    /* With a seed, the tokens of trit_session_decode. */
    {
        trit_generation random = greedy(6);
        struct heard heard = {0};
        size_t start = 0;
        random.temperature = 0.9f;
        random.top_k = 0;
        random.top_p = 0.9f;
        random.frequency_penalty = 0.5f;
        random.seed = 5;
        random.ignore_stop_ids = 1;
        OK(trit_session_length(session, &start, &error));
        OK(trit_session_decode(session, &random, hear, &heard, NULL, &error));
        EXPECT(heard.count == 6);
        OK(trit_session_truncate(session, start - 1, &error));
        OK(trit_session_append(session, answer[4], &error));
        OK(trit_sampler_close(&sampler, &error));
        OK(trit_sampler_new(model, &random, &sampler, &error));
        for (at = 0; at < 6; at++) {
            OK(trit_sampler_choose(sampler, session, NULL, 0, &id, &error));
            EXPECT(id == heard.ids[at]);
            OK(trit_session_append(session, id, &error));
        }
    }
    /* By logits of the program's. */
    OK(trit_session_logits(session, logits, 4096, &count, &error));
    logits[17] = 1e9f;
    OK(trit_sampler_choose(sampler, session, logits, count, &id, &error));
    EXPECT(id == 17);
    for (at = 0; at < 4096; at++) logits[at] = 0.0f / 0.0f * (float)at;
    FAILS(TRIT_MODEL, trit_sampler_choose(sampler, session, logits, count, &id, &error));
    EXPECT(id == TRIT_NO_ID);
    FAILS(TRIT_INVALID_ARGUMENT, trit_sampler_choose(sampler, session, logits, 5, &id, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_sampler_choose(sampler, session, NULL, 5, &id, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_sampler_choose(sampler, session, NULL, 0, NULL, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_sampler_choose(sampler, NULL, NULL, 0, &id, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_sampler_choose(NULL, session, NULL, 0, &id, &error));
    OK(trit_session_truncate(session, 1, &error));
    FAILS(TRIT_NO_LOGITS, trit_sampler_choose(sampler, session, NULL, 0, &id, &error));
    OK(trit_sampler_close(&sampler, &error));
    EXPECT(sampler == NULL);
    OK(trit_sampler_close(&sampler, &error));
    OK(trit_sampler_close(NULL, &error));
    how.top_p = 7;
    FAILS(TRIT_INVALID_ARGUMENT, trit_sampler_new(model, &how, &sampler, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_sampler_new(model, NULL, NULL, &error));
    FAILS(TRIT_INVALID_ARGUMENT, trit_sampler_new(NULL, NULL, &sampler, &error));
    OK(trit_session_close(&session, &error));
    free(logits);
}

/* A context that is soon full, and each type of a KV cache. */
static void contexts(void) {
    trit_options how = options();
    uint32_t kv;

    for (kv = TRIT_KV_F16; kv <= TRIT_KV_INT8; kv++) {
        trit_model *model = NULL;
        trit_session *session = NULL;
        trit_generation generation = greedy(40);
        trit_result result;
        struct heard heard = {0};
        uint32_t ids[64];
        size_t count, length = 0;
        trit_model_info info;

        how.context = 16;
        how.kv = kv;
        how.threads = 1;
        OK(trit_model_open(bundle, &how, &model, &error));
        info.size = sizeof info;
        OK(trit_model_describe(model, &info, &error));
        EXPECT(info.context_length == 16 && info.longest_context > 16 && info.threads == 1);
        session = prefilled(model);
        count = prompt(model, ids, 64);
        result.size = sizeof result;
        OK(trit_session_decode(session, &generation, hear, &heard, &result, &error));
        EXPECT(result.finish == TRIT_FINISH_CONTEXT && result.generated == 16 - count + 1);
        FAILS(TRIT_CONTEXT_FULL, trit_session_append(session, 1, &error));
        SAID("longer context");
        OK(trit_session_truncate(session, 3, &error));
        FAILS(TRIT_CONTEXT_FULL, trit_session_prefill(session, heard.ids, 14, &error));
        OK(trit_session_length(session, &length, &error));
        EXPECT(length == 3);
        OK(trit_session_append(session, 1, &error));
        OK(trit_session_close(&session, &error));
        trit_model_close(&model);
    }
}

static void without_tokenizer(void) {
    trit_options how = options();
    trit_model *model = NULL;
    trit_session *session = NULL;
    trit_detokenizer *stream = NULL;
    trit_generation generation = greedy(3);
    trit_result result;
    struct heard heard = {0};
    uint32_t ids[3] = {4, 5, 6};
    const char *stop = "stop";
    char text[8];
    size_t count = 0;

    OK(trit_model_open(ids_only, &how, &model, &error));
    FAILS(TRIT_UNSUPPORTED, trit_tokenize(model, "a", 1, 1, NULL, 0, &count, &error));
    FAILS(TRIT_UNSUPPORTED, trit_detokenize(model, ids, 3, 1, text, sizeof text, &count, &error));
    FAILS(TRIT_UNSUPPORTED, trit_detokenizer_new(model, ids, 3, &stream, &error));
    OK(trit_session_new(model, &session, &error));
    OK(trit_session_prefill(session, ids, 3, &error));
    result.size = sizeof result;
    generation.ignore_stop_ids = 1;
    OK(trit_session_decode(session, &generation, hear, &heard, &result, &error));
    EXPECT(heard.count == 3 && heard.length == 0);
    generation.stop_texts = &stop;
    generation.stop_text_count = 1;
    FAILS(TRIT_UNSUPPORTED, trit_session_decode(session, &generation, hear, &heard, &result, &error));
    FAILS(TRIT_UNSUPPORTED, trit_chat_prompt_json(model, "[]", 2, text, sizeof text, &count, &error));
    OK(trit_session_close(&session, &error));
    trit_model_close(&model);
}

/* ---- threads */

struct worker {
    trit_model *model;
    pthread_t thread;
};

static void *work(void *given) {
    struct worker *worker = given;
    trit_session *session = prefilled(worker->model);
    struct heard heard = {0};
    trit_generation how = greedy(12);
    OK(trit_session_decode(session, &how, hear, &heard, NULL, &error));
    EXPECT(heard.count == answer_count && strcmp(heard.text, whole) == 0);
    OK(trit_session_close(&session, &error));
    return NULL;
}

/* Generates until it is told to end. */
static void *endless(void *given) {
    trit_session *session = given;
    static struct heard heard;
    trit_generation how = greedy((size_t)-1);
    trit_status status = TRIT_OK;
    how.ignore_stop_ids = 1;
    while (status == TRIT_OK) {
        memset(&heard, 0, sizeof heard);
        heard.stop_after = 30;
        EXPECT(trit_session_truncate(session, 3, NULL) == TRIT_OK);
        status = trit_session_decode(session, &how, hear, &heard, NULL, NULL);
    }
    EXPECT(status == TRIT_ABORTED);
    return NULL;
}

static void threads(trit_model *model) {
    struct worker workers[3];
    trit_session *session = prefilled(model);
    struct timespec moment = {0, 50000000};
    pthread_t thread;
    size_t at;

    for (at = 0; at < 3; at++) {
        workers[at].model = model;
        EXPECT(pthread_create(&workers[at].thread, NULL, work, &workers[at]) == 0);
    }
    for (at = 0; at < 3; at++) EXPECT(pthread_join(workers[at].thread, NULL) == 0);

    EXPECT(pthread_create(&thread, NULL, endless, session) == 0);
    nanosleep(&moment, NULL);
    trit_session_abort(session);
    EXPECT(pthread_join(thread, NULL) == 0);
    OK(trit_session_close(&session, &error));
}

/* A child does not have the engine's threads. */
static void forking(trit_model *model) {
    trit_session *session = prefilled(model);
    int status = 0;
    pid_t child;

    fflush(stdout);
    child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        trit_session *another = NULL;
        trit_model *same = model;
        FAILS(TRIT_INVALID_ARGUMENT, trit_session_append(session, 1, &error));
        SAID("fork");
        FAILS(TRIT_INVALID_ARGUMENT, trit_session_new(model, &another, &error));
        OK(trit_session_close(&session, &error));
        trit_model_close(&same);
        /* Closing leaves the engine's memory where it is, which would be a leak to whoever looks at this process's end. */
        execl("/bin/true", "true", (char *)NULL);
        _exit(1);
    }
    EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK(trit_session_append(session, 1, &error));
    OK(trit_session_close(&session, &error));
}

/* What the process does at a signal is as before: nobody set anything. */
static void signals(void) {
    int number;
    for (number = 1; number < 32; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) == 0) EXPECT(action.sa_handler == SIG_DFL);
    }
}

int main(int count, char **arguments) {
    trit_model *model;

    EXPECT(count == 5);
    bundle = arguments[1];
    ids_only = arguments[2];
    signer = arguments[3];
    stranger = arguments[4];
    constants();
    sizes();
    opening();
    keys();
    model = opened();
    texts(model);
    chats(model);
    decoding(model);
    running(model);
    sampling(model);
    contexts();
    without_tokenizer();
    threads(model);
    forking(model);
    trit_model_close(&model);
    signals();
    printf("%lu calls as expected\n", expected);
    return 0;
}
