// Calls every function of trit.hpp: handles that move, errors that are thrown, exceptions that pass through C. usage: wrapper BUNDLE KEY
// OTHER-KEY; the first key signed the bundle
#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <memory>
#include <thread>
#include <trit.hpp>
#include <unistd.h>

#define EXPECT(what)                                                                                                              \
    do {                                                                                                                          \
        if (!(what)) {                                                                                                            \
            std::fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #what);                                              \
            std::abort();                                                                                                         \
        }                                                                                                                         \
    } while (0)

// The status that a call throws.
template <class Call> static trit_status thrown(Call call) {
    try {
        call();
    } catch (const trit::Error &error) {
        EXPECT(*error.what() != 0);
        return error.status();
    }
    return TRIT_OK;
}

struct Mine {
    int number;
};

static_assert(!std::is_copy_constructible<trit::Model>::value && std::is_nothrow_move_constructible<trit::Model>::value, "");
static_assert(!std::is_copy_constructible<trit::Session>::value && std::is_nothrow_move_assignable<trit::Session>::value, "");

int main(int count, char **arguments) {
    EXPECT(count == 4);
    trit::Options options;
    options.kernels = TRIT_KERNELS_PORTABLE;
    options.tuning = TRIT_TUNING_OFF;
    EXPECT(thrown([&] { trit::Model("/no/such/file.trit", options); }) == TRIT_IO);
    trit::Model model(arguments[1], options);
    const trit::Info info = model.info();
    EXPECT(info.vocab_size == 4096 && info.stop_ids.size() == 2 && info.name == "fables-12m" && info.has_chat_template);
    EXPECT(info.kernels.find("portable") == 0 && info.digest.size() == 64 && info.threads > 0 && info.bos == 4093);

    // By who signed it.
    trit::Options signed_by = options;
    signed_by.key_files = {arguments[3], arguments[2]};
    EXPECT(trit::Model(arguments[1], signed_by).info().digest == info.digest);
    signed_by.key_files = {arguments[3]};
    EXPECT(thrown([&] { trit::Model(arguments[1], signed_by); }) == TRIT_UNTRUSTED);

    // The same bundle from other places.
    std::ifstream file(arguments[1], std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    EXPECT(trit::Model::from_copy(bytes.data(), bytes.size(), options).info().digest == info.digest);
    EXPECT(trit::Model::from_borrowed(bytes.data(), bytes.size(), options).info().digest == info.digest);
    const int fd = ::open(arguments[1], O_RDONLY);
    EXPECT(trit::Model::from_fd(fd, 0, 0, options).info().digest == info.digest);
    ::close(fd);
    EXPECT(thrown([&] { trit::Model::from_copy(bytes.data(), 64, options); }) == TRIT_INVALID_BUNDLE);

    // Text, also such that no first buffer holds.
    const std::string prompt = "Once upon a time there was a king";
    const std::vector<std::uint32_t> ids = model.tokenize(prompt, true);
    EXPECT(model.detokenize(ids, true) == prompt && model.tokenize("", false).empty() && model.detokenize({}, true).empty());
    std::string many;
    for (int at = 0; at < 3000; at++) many += "a king, ";
    EXPECT(model.detokenize(model.tokenize(many, false), true) == many);
    many += "end";
    EXPECT(model.chat_prompt({{"user", many}}).find(many) != std::string::npos);
    EXPECT(model.chat_prompt({{"user", "Hi"}}) == model.chat_prompt_json("[{\"role\": \"user\", \"content\": \"Hi\"}]"));
    EXPECT(model.chat_prompt({{"user", "Hi"}}, false) != model.chat_prompt({{"user", "Hi"}}));
    EXPECT(thrown([&] { model.detokenize({4096}, true); }) == TRIT_INVALID_ARGUMENT);
    trit::Detokenizer stream(model, ids);
    std::string piece;
    for (const std::uint32_t id : model.tokenize(" and a queen", false)) piece += stream.push(id);
    EXPECT(piece + stream.push(TRIT_NO_ID) == " and a queen");

    // An answer, in each way.
    trit::Session session = model.session();
    session.prefill(ids);
    trit::Generation generation;
    generation.temperature = 0;
    generation.max_tokens = 8;
    const std::string whole = session.decode(generation);
    EXPECT(!whole.empty() && session.length() == ids.size() + 8);
    const std::vector<std::uint32_t> all = session.tokens();
    trit::Session fork = session.fork(ids.size());
    EXPECT(thrown([&] { fork.logits(); }) == TRIT_NO_LOGITS);
    EXPECT(fork.set(ids) == ids.size() - 1 && fork.logits().size() == 4096);
    trit::Sampler sampler(model, generation);
    for (std::size_t at = ids.size(); at < all.size(); at++) {
        const std::uint32_t id = at % 2 ? sampler.choose(fork) : sampler.choose(fork, fork.logits());
        EXPECT(id == all[at]);
        fork.append(id);
    }
    session.truncate(ids.size());
    generation.stop = {"no such text", whole.substr(4, 2)};
    trit_result result = session.decode(generation, [](std::uint32_t, std::string_view) {});
    EXPECT(result.finish == TRIT_FINISH_STOP);
    generation.stop.clear();
    session.truncate(ids.size());
    int heard = 0;
    result = session.decode(generation, [&](std::uint32_t, std::string_view) { return ++heard < 3; });
    EXPECT(heard == 3 && result.finish == TRIT_FINISH_CALLBACK && result.generated == 3);

    // An exception ends the answer, passes by the library, and leaves the session usable.
    session.truncate(ids.size());
    heard = 0;
    try {
        session.decode(generation, [&](std::uint32_t, std::string_view) {
            if (++heard == 2) throw std::make_unique<Mine>(Mine{7});
        });
        EXPECT(false);
    } catch (const std::unique_ptr<Mine> &mine) {
        EXPECT(mine->number == 7 && heard == 2 && session.length() == ids.size() + 2);
    }
    EXPECT(thrown([&] { session.decode(generation, [&](std::uint32_t, std::string_view) { session.append(1); }); }) == TRIT_BUSY);
    session.truncate(ids.size());
    EXPECT(session.decode(generation) == whole);

    // Another thread ends it.
    session.truncate(ids.size());
    generation.max_tokens = 100;
    generation.ignore_stop_ids = 1;
    std::thread other;
    EXPECT(thrown([&] {
               session.decode(generation, [&](std::uint32_t, std::string_view) {
                   if (!other.joinable()) {
                       other = std::thread([&] { session.abort(); });
                       other.join();
                       other = std::thread([] {});
                   }
               });
           }) == TRIT_ABORTED);
    other.join();
    session.resume();
    session.append(1);

    // What was moved from is nothing any more; sessions outlive the model's handle.
    trit::Session moved = std::move(session);
    EXPECT(thrown([&] { session.append(1); }) == TRIT_INVALID_ARGUMENT && session.get() == nullptr);
    session = std::move(fork);
    {
        const trit::Model gone = std::move(model);
        EXPECT(gone.get() != nullptr && thrown([&] { model.info(); }) == TRIT_INVALID_ARGUMENT);
    }
    moved.append(2);
    session.append(2);
    std::puts("the wrapper works");
}
