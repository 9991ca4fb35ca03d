"""The official `anthropic` package against a small model with a plain chat template."""

import anthropic
from suite import check, idle, main, raises, wait_until

QUESTION = [{"role": "user", "content": "Tell me about a fox."}]
# The package has no name for the temperature.
GREEDY = {"model": "default", "extra_body": {"temperature": 0}}


def client(url):
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)


def ask(url, messages=None, **more):
    return client(url).messages.create(messages=messages or QUESTION, **{**GREEDY, "max_tokens": 12, **more})


def text(message):
    return "".join(block.text for block in message.content if block.type == "text")


@check
def whole(url):
    message = ask(url)
    assert message.type == "message" and message.role == "assistant" and text(message), message
    assert message.stop_reason == "max_tokens" and message.stop_sequence is None, message
    assert message.usage.output_tokens == 12 and text(ask(url)) == text(message)
    blocks = [{"role": "user", "content": [{"type": "text", "text": "Tell me about a fox."}]}]
    assert text(ask(url, blocks)) == text(message)


@check
def tokens_are_counted(url):
    count = client(url).messages.count_tokens(messages=QUESTION, model="default").input_tokens
    usage = ask(url).usage
    assert count == usage.input_tokens + usage.cache_read_input_tokens, (count, usage)
    more = client(url).messages.count_tokens(messages=QUESTION, model="default", system="Be brief.").input_tokens
    assert more > count, (more, count)


@check
def streamed(url):
    message = ask(url)
    with client(url).messages.stream(messages=QUESTION, max_tokens=12, **GREEDY) as stream:
        joined = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert joined == text(message) == text(last), (joined, message)
    assert last.stop_reason == "max_tokens" and last.usage.output_tokens == 12, last
    prompt = lambda usage: usage.input_tokens + usage.cache_read_input_tokens
    assert prompt(last.usage) == prompt(message.usage)
    kinds = [event.type for event in ask(url, stream=True)]
    assert kinds[:3] == ["message_start", "content_block_start", "content_block_delta"], kinds
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"], kinds


@check
def stop_sequences(url):
    said = text(ask(url, max_tokens=30))
    stop = said.split()[2]
    message = ask(url, max_tokens=30, stop_sequences=["never said", stop])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop), message
    assert text(message) == said[: said.index(stop)]


@check
def system_and_beginnings(url):
    message = ask(url, system=[{"type": "text", "text": "Be brief."}])
    assert text(message) == text(ask(url, system="Be brief."))
    said = text(ask(url, max_tokens=30))
    begun = said[: len(said) // 2].rstrip()
    goes_on = text(ask(url, [*QUESTION, {"role": "assistant", "content": begun}], max_tokens=40))
    assert goes_on and not goes_on.startswith(begun), goes_on


@check
def cancelled_streams_free_their_slot(url):
    for _ in range(3):
        with client(url).messages.stream(messages=QUESTION, max_tokens=900, **GREEDY) as stream:
            next(iter(stream))
    wait_until(lambda: idle(url), "a free slot")
    assert text(ask(url))


@check
def errors(url):
    bad = anthropic.BadRequestError
    error = raises(bad, lambda: ask(url, max_tokens=0))
    assert error.body["type"] == "error" and error.body["error"]["type"] == "invalid_request_error", error.body
    raises(bad, lambda: ask(url, extra_body={"temperature": "hot"}))
    raises(bad, lambda: client(url).messages.create(messages=[], max_tokens=5, **GREEDY))
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
    assert "image" in str(raises(bad, lambda: ask(url, [{"role": "user", "content": [image]}])))
    raises(bad, lambda: ask(url, tools=[{"type": "bash_20250124", "name": "bash"}]))
    raises(bad, lambda: ask(url, tool_choice={"type": "any"}))
    long = raises(bad, lambda: ask(url, [{"role": "user", "content": "fox " * 5000}]))
    assert "context length" in str(long), long
    error = raises(anthropic.NotFoundError, lambda: ask(url, model="claude-9"))
    assert error.body["error"]["type"] == "not_found_error", error.body
    answer = client(url)._client.post(f"{url}/v1/messages", content=b'{"messages": "\xff"}')
    assert answer.status_code == 400 and answer.json()["type"] == "error", answer.text


main()
