/* Continues a text, or answers a message, with the most probable tokens: text as it comes.

       cc chat.c $(pkg-config --cflags --libs trit) -o chat
       ./chat fables-12m.trit "Once upon a time"
       ./chat fables-12m.trit "A fable about a fox" chat */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trit.h>

/* Ends the program where a call failed. */
static void check(trit_status status, trit_error **error) {
    if (status != TRIT_OK) {
        fprintf(stderr, "%s: %s\n", trit_status_name(status), trit_error_message(*error));
        trit_error_free(error);
        exit(1);
    }
}

static int show(void *user, uint32_t id, const char *text, size_t length) {
    (void)user;
    (void)id;
    fwrite(text, 1, length, stdout);
    return fflush(stdout) == 0 ? 0 : 1;
}

int main(int count, char **arguments) {
    trit_error *error = NULL;
    trit_model *model = NULL;
    trit_session *session = NULL;
    trit_generation generation;
    char *prompt = NULL;
    uint32_t *ids = NULL;
    size_t length = 0, tokens = 0;
    int as_chat = count == 4 && strcmp(arguments[3], "chat") == 0;

    if (count != 3 && !as_chat) {
        fprintf(stderr, "usage: chat BUNDLE TEXT [chat]\n");
        return 2;
    }
    check(trit_model_open(arguments[1], NULL, &model, &error), &error);

    /* The prompt: the text as it is, or what the model's chat template makes of it. Both calls are made twice: how much is there,
       and then the thing itself. */
    if (as_chat) {
        trit_message message = {"user", NULL};
        message.content = arguments[2];
        check(trit_chat_prompt(model, &message, 1, 1, NULL, 0, &length, &error), &error);
        prompt = malloc(length + 1);
        if (prompt == NULL) return 1;
        check(trit_chat_prompt(model, &message, 1, 1, prompt, length + 1, &length, &error), &error);
    } else {
        length = strlen(arguments[2]);
        prompt = malloc(length + 1);
        if (prompt == NULL) return 1;
        memcpy(prompt, arguments[2], length + 1);
    }
    check(trit_tokenize(model, prompt, length, !as_chat, NULL, 0, &tokens, &error), &error);
    ids = malloc((tokens + 1) * sizeof *ids);
    if (ids == NULL) return 1;
    check(trit_tokenize(model, prompt, length, !as_chat, ids, tokens, &tokens, &error), &error);

    check(trit_session_new(model, &session, &error), &error);
    check(trit_session_prefill(session, ids, tokens, &error), &error);
    check(trit_generation_init(&generation, sizeof generation, &error), &error);
    generation.temperature = 0;
    generation.max_tokens = 60;
    check(trit_session_decode(session, &generation, show, NULL, NULL, &error), &error);
    printf("\n");

    check(trit_session_close(&session, &error), &error);
    trit_model_close(&model);
    free(ids);
    free(prompt);
    return 0;
}
