// C++17 over trit.h: handles that close themselves, std::string, exceptions in place of statuses.
//
// What trit.h says of threads, ownership and aborting holds here too. Handles can be moved and not copied; what was moved from gives
// trit::Error with TRIT_INVALID_ARGUMENT. Everything here is inline: the shared library has no C++ in it.
#ifndef TRIT_HPP
#define TRIT_HPP

#include "trit.h"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace trit {

// A call that failed.
class Error : public std::runtime_error {
  public:
    Error(trit_status status, const std::string &message) : std::runtime_error(message), status_(status) {}

    // Its status, never TRIT_OK.
    trit_status status() const noexcept { return status_; }

  private:
    trit_status status_;
};

namespace detail {

// Where a call puts its error.
class Failure {
  public:
    Failure() = default;
    Failure(const Failure &) = delete;
    Failure &operator=(const Failure &) = delete;
    ~Failure() { trit_error_free(&error_); }

    trit_error **out() { return &error_; }

    // Throws what a call came to, unless it did what it says.
    void check(trit_status status) const {
        if (status != TRIT_OK) {
            throw Error(status, trit_error_message(error_));
        }
    }

  private:
    trit_error *error_ = nullptr;
};

// Calls `call(arguments..., error)`, and throws where it fails.
template <class Call, class... Arguments> void run(Call call, Arguments &&...arguments) {
    Failure failure;
    failure.check(call(std::forward<Arguments>(arguments)..., failure.out()));
}

// What `call(buffer, capacity, &count)` writes, first into a buffer of about the right size.
template <class Values, class Call> Values filled(std::size_t guess, std::size_t end, Call call) {
    for (;;) {
        Values values;
        values.resize(guess + end);
        std::size_t count = 0;
        Failure failure;
        const trit_status status = call(values.data(), values.size(), &count, failure.out());
        if (status == TRIT_BUFFER_TOO_SMALL) {
            guess = count;
            continue;
        }
        failure.check(status);
        values.resize(count);
        return values;
    }
}

// A handle, which is closed in the end.
template <class T, void (*Close)(T **)> class Handle {
  public:
    Handle() = default;
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;
    Handle(Handle &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Handle &operator=(Handle &&other) noexcept {
        if (this != &other) {
            Close(&handle_);
            handle_ = std::exchange(other.handle_, nullptr);
        }
        return *this;
    }
    ~Handle() { Close(&handle_); }

    T *get() const noexcept { return handle_; }
    T **out() { return &handle_; }

  private:
    T *handle_ = nullptr;
};

inline void close(trit_model **model) { trit_model_close(model); }
// A handle that a call uses stays open: who destroys it then has made a mistake, and leaks it.
inline void close(trit_session **session) { static_cast<void>(trit_session_close(session, nullptr)); }
inline void close(trit_sampler **sampler) { static_cast<void>(trit_sampler_close(sampler, nullptr)); }
inline void close(trit_detokenizer **stream) { static_cast<void>(trit_detokenizer_close(stream, nullptr)); }

template <class T> using Owned = Handle<T, static_cast<void (*)(T **)>(close)>;

} // namespace detail

// How a bundle is opened: trit_options with their defaults, and keys.
struct Options : trit_options {
    Options() : trit_options() { detail::run(trit_options_init, this, sizeof(trit_options)); }

    // Files of public keys, one of which must have signed the bundle, in place of the pointers to them.
    std::vector<std::string> key_files;
};

// How an answer is generated: trit_generation with its defaults, and stop texts.
struct Generation : trit_generation {
    Generation() : trit_generation() { detail::run(trit_generation_init, this, sizeof(trit_generation)); }

    // Texts that end the answer and are no part of it, in place of the pointers to them.
    std::vector<std::string> stop;
};

namespace detail {

// Pointers to texts, which must live as long.
inline std::vector<const char *> pointers(const std::vector<std::string> &texts) {
    std::vector<const char *> pointers;
    for (const std::string &text : texts) {
        pointers.push_back(text.c_str());
    }
    return pointers;
}

// Calls `call(arguments..., options, to, error)` with the structure that C knows, and throws where it fails.
template <class Call, class... Arguments>
void open(Call call, trit_model **to, const Options &options, Arguments... arguments) {
    const std::vector<const char *> keys = pointers(options.key_files);
    trit_options given = options;
    if (!keys.empty()) {
        given.keys = keys.data();
        given.key_count = keys.size();
    }
    run(call, arguments..., &given, to);
}

// Calls `call` with the structure that C knows.
template <class Call> auto with_stop_texts(const Generation &generation, Call call) {
    const std::vector<const char *> stop = pointers(generation.stop);
    trit_generation given = generation;
    if (!stop.empty()) {
        given.stop_texts = stop.data();
        given.stop_text_count = stop.size();
    }
    return call(&given);
}

} // namespace detail

// One message of a conversation.
struct Message {
    std::string role;
    std::string content;
};

// What a bundle is.
struct Info {
    std::uint32_t vocab_size;
    std::uint32_t context_length;
    std::uint32_t longest_context;
    std::uint32_t threads;
    // TRIT_NO_ID where there is none.
    std::uint32_t bos;
    bool has_chat_template;
    std::vector<std::uint32_t> stop_ids;
    std::string name;
    std::string kernels;
    std::string digest;
};

class Sampler;
class Detokenizer;

// One text on an open bundle.
class Session {
  public:
    // Runs tokens after those that the session has.
    void prefill(const std::vector<std::uint32_t> &ids) {
        detail::run(trit_session_prefill, handle_.get(), ids.data(), ids.size());
    }

    // Runs one token.
    void append(std::uint32_t id) { detail::run(trit_session_append, handle_.get(), id); }

    // Makes the tokens these, and returns how many did not have to run.
    std::size_t set(const std::vector<std::uint32_t> &ids) {
        std::size_t kept = 0;
        detail::run(trit_session_set, handle_.get(), ids.data(), ids.size(), &kept);
        return kept;
    }

    // Forgets all but the first `position` tokens.
    void truncate(std::size_t position) { detail::run(trit_session_truncate, handle_.get(), position); }

    // A session with the first `position` tokens of this one.
    Session fork(std::size_t position) const {
        Session fork;
        detail::run(trit_session_fork, handle_.get(), position, fork.handle_.out());
        return fork;
    }

    // How many tokens it has.
    std::size_t length() const {
        std::size_t length = 0;
        detail::run(trit_session_length, handle_.get(), &length);
        return length;
    }

    // The tokens.
    std::vector<std::uint32_t> tokens() const {
        const auto call = [this](std::uint32_t *ids, std::size_t capacity, std::size_t *count, trit_error **error) {
            return trit_session_tokens(handle_.get(), ids, capacity, count, error);
        };
        return detail::filled<std::vector<std::uint32_t>>(length() + 1, 0, call);
    }

    // The logits after the last token.
    std::vector<float> logits() const {
        std::size_t count = 0;
        detail::run(trit_session_logits, handle_.get(), nullptr, std::size_t(0), &count);
        std::vector<float> logits(count);
        detail::run(trit_session_logits, handle_.get(), logits.data(), logits.size(), &count);
        return logits;
    }

    // Generates an answer. `each(id, text)` is called with every token as it is chosen (std::uint32_t, std::string_view); it returns
    // nothing, or whether to go on. An exception that it throws ends the answer, and is thrown again from here when the library has
    // returned.
    template <class Each> trit_result decode(const Generation &generation, Each &&each) {
        struct Caller {
            Each &each;
            std::exception_ptr thrown;
        } caller{each, nullptr};
        const trit_token_callback callback = [](void *user, std::uint32_t id, const char *text, std::size_t length) noexcept {
            Caller &calling = *static_cast<Caller *>(user);
            try {
                const std::string_view piece(text, length);
                if constexpr (std::is_void_v<std::invoke_result_t<Each &, std::uint32_t, std::string_view>>) {
                    calling.each(id, piece);
                    return 0;
                } else {
                    return calling.each(id, piece) ? 0 : 1;
                }
            } catch (...) {
                calling.thrown = std::current_exception();
                return 1;
            }
        };
        trit_result result{};
        result.size = sizeof(trit_result);
        detail::Failure failure;
        const trit_status status = detail::with_stop_texts(generation, [&](const trit_generation *given) {
            return trit_session_decode(handle_.get(), given, callback, &caller, &result, failure.out());
        });
        if (caller.thrown) {
            std::rethrow_exception(caller.thrown);
        }
        failure.check(status);
        return result;
    }

    // Generates an answer, and returns its text.
    std::string decode(const Generation &generation = Generation()) {
        std::string text;
        decode(generation, [&text](std::uint32_t, std::string_view piece) { text += piece; });
        return text;
    }

    // Ends the call that uses the session, from any thread.
    void abort() const noexcept { trit_session_abort(handle_.get()); }

    // Lets the session run tokens again.
    void resume() const noexcept { trit_session_resume(handle_.get()); }

    trit_session *get() const noexcept { return handle_.get(); }

  private:
    friend class Model;
    Session() = default;
    detail::Owned<trit_session> handle_;
};

// An open bundle with the threads that run it.
class Model {
  public:
    // Opens the bundle at a path.
    explicit Model(const std::string &path, const Options &options = Options()) {
        detail::open(trit_model_open, handle_.out(), options, path.c_str());
    }

    // Opens a bundle in an open file; length 0: to the file's end.
    static Model from_fd(int fd, std::uint64_t offset, std::uint64_t length, const Options &options = Options()) {
        Model model;
        detail::open(trit_model_open_fd, model.handle_.out(), options, fd, offset, length);
        return model;
    }

    // Opens a copy of a bundle in memory.
    static Model from_copy(const void *bytes, std::size_t length, const Options &options = Options()) {
        Model model;
        detail::open(trit_model_open_memory, model.handle_.out(), options, bytes, length, std::uint32_t(TRIT_BYTES_COPY));
        return model;
    }

    // Opens a bundle in memory that outlives the model and all that was made of it.
    static Model from_borrowed(const void *bytes, std::size_t length, const Options &options = Options()) {
        Model model;
        detail::open(trit_model_open_memory, model.handle_.out(), options, bytes, length, std::uint32_t(TRIT_BYTES_BORROW));
        return model;
    }

    // What it is.
    Info info() const {
        trit_model_info info{};
        info.size = sizeof(trit_model_info);
        detail::run(trit_model_describe, handle_.get(), &info);
        return Info{info.vocab_size,
                    info.context_length,
                    info.longest_context,
                    info.threads,
                    info.bos,
                    info.has_chat_template != 0,
                    std::vector<std::uint32_t>(info.stop_ids, info.stop_ids + info.stop_id_count),
                    info.name,
                    info.kernels,
                    info.digest};
    }

    // The ids of a text; `add_special` adds what the model wants around one.
    std::vector<std::uint32_t> tokenize(std::string_view text, bool add_special) const {
        const auto call = [&](std::uint32_t *ids, std::size_t capacity, std::size_t *count, trit_error **error) {
            return trit_tokenize(handle_.get(), text.data(), text.size(), add_special, ids, capacity, count, error);
        };
        return detail::filled<std::vector<std::uint32_t>>(text.size() + 8, 0, call);
    }

    // The text of ids.
    std::string detokenize(const std::vector<std::uint32_t> &ids, bool skip_special) const {
        return text(ids.size() * 8, [&](char *text, std::size_t capacity, std::size_t *length, trit_error **error) {
            return trit_detokenize(handle_.get(), ids.data(), ids.size(), skip_special, text, capacity, length, error);
        });
    }

    // The prompt of a conversation.
    std::string chat_prompt(const std::vector<Message> &messages, bool add_generation_prompt = true) const {
        std::vector<trit_message> given;
        for (const Message &message : messages) {
            given.push_back(trit_message{message.role.c_str(), message.content.c_str()});
        }
        return text(1024, [&](char *text, std::size_t capacity, std::size_t *length, trit_error **error) {
            return trit_chat_prompt(handle_.get(), given.data(), given.size(), add_generation_prompt, text, capacity, length,
                                    error);
        });
    }

    // The prompt of a conversation in JSON.
    std::string chat_prompt_json(std::string_view json) const {
        return text(1024, [&](char *text, std::size_t capacity, std::size_t *length, trit_error **error) {
            return trit_chat_prompt_json(handle_.get(), json.data(), json.size(), text, capacity, length, error);
        });
    }

    // An empty session.
    Session session() const {
        Session session;
        detail::run(trit_session_new, handle_.get(), session.handle_.out());
        return session;
    }

    trit_model *get() const noexcept { return handle_.get(); }

  private:
    Model() = default;

    template <class Call> static std::string text(std::size_t guess, Call call) {
        // A NUL follows the text.
        return detail::filled<std::string>(guess, 1, call);
    }

    detail::Owned<trit_model> handle_;
};

// Chooses the tokens of one answer.
class Sampler {
  public:
    explicit Sampler(const Model &model, const Generation &generation = Generation()) {
        detail::with_stop_texts(generation, [&](const trit_generation *given) {
            detail::run(trit_sampler_new, model.get(), given, handle_.out());
            return 0;
        });
    }

    // A token after the session's, by its logits.
    std::uint32_t choose(const Session &session) {
        std::uint32_t id = TRIT_NO_ID;
        detail::run(trit_sampler_choose, handle_.get(), session.get(), nullptr, std::size_t(0), &id);
        return id;
    }

    // A token after the session's, by other logits.
    std::uint32_t choose(const Session &session, const std::vector<float> &logits) {
        std::uint32_t id = TRIT_NO_ID;
        detail::run(trit_sampler_choose, handle_.get(), session.get(), logits.data(), logits.size(), &id);
        return id;
    }

  private:
    detail::Owned<trit_sampler> handle_;
};

// Turns ids into text one by one.
class Detokenizer {
  public:
    explicit Detokenizer(const Model &model, const std::vector<std::uint32_t> &prompt = {}) {
        detail::run(trit_detokenizer_new, model.get(), prompt.data(), prompt.size(), handle_.out());
    }

    // The text that became certain with an id; TRIT_NO_ID is the end.
    std::string push(std::uint32_t id) {
        const char *text = nullptr;
        std::size_t length = 0;
        detail::run(trit_detokenizer_push, handle_.get(), id, &text, &length);
        return std::string(text, length);
    }

  private:
    detail::Owned<trit_detokenizer> handle_;
};

} // namespace trit

#endif // TRIT_HPP
