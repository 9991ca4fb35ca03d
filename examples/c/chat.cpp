// As chat.c, in C++17: handles close themselves, errors are exceptions.
//
//     c++ -std=c++17 chat.cpp $(pkg-config --cflags --libs trit) -o chat
//     ./chat fables-12m.trit "A fable about a fox" chat
#include <exception>
#include <iostream>
#include <string>
#include <string_view>
#include <trit.hpp>

int main(int count, char **arguments) {
    const bool as_chat = count == 4 && std::string_view(arguments[3]) == "chat";
    if (count != 3 && !as_chat) {
        std::cerr << "usage: chat BUNDLE TEXT [chat]\n";
        return 2;
    }
    try {
        const trit::Model model(arguments[1]);
        const std::string prompt = as_chat ? model.chat_prompt({{"user", arguments[2]}}) : arguments[2];
        trit::Session session = model.session();
        session.prefill(model.tokenize(prompt, !as_chat));
        trit::Generation generation;
        generation.temperature = 0;
        generation.max_tokens = 60;
        session.decode(generation, [](std::uint32_t, std::string_view text) { std::cout << text << std::flush; });
        std::cout << std::endl;
    } catch (const std::exception &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
