"""The official `openai` package against a small model with a plain chat template."""

import asyncio

import openai
from suite import ask, check, idle, main, raises, wait_until

QUESTION = [{"role": "user", "content": "Tell me about a fox."}]
GREEDY = {"model": "default", "temperature": 0}


def client(url, **more):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, **more)


def chat(url, messages=None, **more):
    return client(url).chat.completions.create(messages=messages or QUESTION, **{**GREEDY, "max_tokens": 12, **more})


@check
def models(url):
    listed = list(client(url).models.list())
    assert len(listed) == 1 and listed[0].object == "model", listed
    assert client(url).models.retrieve(listed[0].id).id == listed[0].id
    raises(openai.NotFoundError, lambda: client(url).models.retrieve("gpt-9"))


@check
def chat_whole(url):
    answer = chat(url)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content, answer
    assert choice.finish_reason == "length" and answer.usage.completion_tokens == 12, answer
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert chat(url).choices[0].message.content == choice.message.content


@check
def chat_streamed(url):
    chunks = list(chat(url, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole = chat(url)
    assert text == whole.choices[0].message.content, text
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == "length" and not any(reasons[:-1]), reasons
    assert not chunks[-1].choices and chunks[-1].usage.completion_tokens == 12, chunks[-1]
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chat(url, stream=True))


@check
def several_answers(url):
    answers = chat(url, n=3, temperature=1, seed=7)
    texts = [choice.message.content for choice in answers.choices]
    assert [choice.index for choice in answers.choices] == [0, 1, 2] and len(set(texts)) > 1, texts
    assert answers.usage.completion_tokens == 36, answers.usage
    again = chat(url, n=3, temperature=1, seed=7)
    assert [choice.message.content for choice in again.choices] == texts
    streamed = ["", "", ""]
    for chunk in chat(url, n=3, temperature=1, seed=7, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts, streamed


@check
def stops(url):
    text = chat(url, max_tokens=30).choices[0].message.content
    stop = text.split()[2]
    answer = chat(url, max_tokens=30, stop=[stop]).choices[0]
    assert answer.finish_reason == "stop" and answer.message.content == text[: text.index(stop)], answer
    joined = "".join(c.choices[0].delta.content or "" for c in chat(url, max_tokens=30, stop=stop, stream=True))
    assert joined == answer.message.content


@check
def logprobs(url):
    answer = chat(url, logprobs=True, top_logprobs=3).choices[0]
    tokens = answer.logprobs.content
    assert len(tokens) == 12 and b"".join(bytes(t.bytes) for t in tokens).decode() == answer.message.content
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3, token
        assert token.top_logprobs[0].token == token.token, "the most probable token is chosen"
        assert token.top_logprobs[0].logprob == token.logprob
    streamed = [t for c in chat(url, logprobs=True, stream=True) for t in (c.choices[0].logprobs or NONE).content]
    assert [t.token for t in streamed] == [t.token for t in tokens]
    assert chat(url).choices[0].logprobs is None


class NONE:
    content = ()


@check
def biases(url):
    first = chat(url, max_tokens=1, logprobs=True, top_logprobs=2).choices[0].logprobs.content[0].top_logprobs
    ids = ask(url, "/tokenize", {"content": first[0].token})["tokens"]
    assert len(ids) == 1, ids
    other = chat(url, max_tokens=1, logit_bias={str(ids[0]): -100}).choices[0].message.content
    assert other == first[1].token, (other, first)


@check
def completions(url):
    asked = {**GREEDY, "prompt": "Once upon a time", "max_tokens": 10}
    whole = client(url).completions.create(**asked)
    assert whole.choices[0].text and whole.usage.completion_tokens == 10, whole
    joined = "".join(c.choices[0].text for c in client(url).completions.create(**asked, stream=True) if c.choices)
    assert joined == whole.choices[0].text


@check
def many_at_once(url):
    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as many:
            create = many.chat.completions.create
            return await asyncio.gather(*(create(messages=QUESTION, max_tokens=12, **GREEDY) for _ in range(12)))

    texts = {answer.choices[0].message.content for answer in asyncio.run(all_of_them())}
    assert texts == {chat(url).choices[0].message.content}, texts


@check
def cancelled_streams_free_their_slot(url):
    for _ in range(3):
        stream = chat(url, stream=True, max_tokens=900, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
    wait_until(lambda: idle(url), "a free slot")
    assert chat(url).choices[0].message.content


@check
def errors(url):
    bad = openai.BadRequestError
    raises(bad, lambda: chat(url, temperature="hot"), param="temperature")
    raises(bad, lambda: chat(url, temperature=-1), param="temperature")
    raises(bad, lambda: client(url).chat.completions.create(messages=[], **GREEDY), param="messages")
    raises(bad, lambda: chat(url, messages=[{"role": "user", "content": 5}]), param="messages[0].content")
    raises(bad, lambda: chat(url, extra_body={"tools": [{}]}), param="tools[0].type")
    long = raises(bad, lambda: chat(url, messages=[{"role": "user", "content": "fox " * 5000}]))
    assert long.code == "context_length_exceeded", long
    unknown = raises(openai.NotFoundError, lambda: chat(url, model="gpt-9"), param="model")
    assert unknown.code == "model_not_found", unknown
    raises(openai.NotFoundError, lambda: client(url).embeddings.create(model="default", input="fox"))
    raises(openai.NotFoundError, lambda: client(url).post("/nothing", body={}, cast_to=object))
    raises(openai.APIStatusError, lambda: client(url).get("/chat/completions", cast_to=object), status_code=405)
    for body in [b"{", b"[1]", b'{"messages": "\xff"}', b""]:
        answer = client(url)._client.post(f"{url}/v1/chat/completions", content=body)
        assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error", answer.text


# ---- responses


def respond(url, input="Tell me about a fox.", **more):
    return client(url).responses.create(input=input, **{**GREEDY, "max_output_tokens": 16, **more})


@check
def responses_whole(url):
    answer = respond(url)
    assert answer.object == "response" and answer.status == "incomplete", answer
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output_text == chat(url, max_tokens=16).choices[0].message.content
    assert answer.usage.output_tokens == 16 and answer.usage.total_tokens == answer.usage.input_tokens + 16
    items = [{"role": "user", "content": [{"type": "input_text", "text": "Tell me about a fox."}]}]
    assert respond(url, input=items).output_text == answer.output_text
    system = respond(url, instructions="Be brief.", store=True, metadata={"a": "b"})
    said = [{"role": "system", "content": "Be brief."}, *QUESTION]
    assert system.output_text == chat(url, messages=said, max_tokens=16).choices[0].message.content
    assert system.instructions == "Be brief." and system.metadata == {"a": "b"}


@check
def responses_go_on(url):
    first = respond(url)
    turns = [*QUESTION, *(item.model_dump(exclude_none=True) for item in first.output), {"role": "user", "content": "And then?"}]
    second = respond(url, input=turns)
    said = [*QUESTION, {"role": "assistant", "content": first.output_text}, {"role": "user", "content": "And then?"}]
    assert second.output_text == chat(url, messages=said, max_tokens=16).choices[0].message.content


@check
def responses_streamed(url):
    whole = respond(url)
    events = list(respond(url, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ], kinds
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ], kinds
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    last = events[-1].response
    assert last.output_text == whole.output_text and last.usage.output_tokens == 16 and last.id == events[0].response.id
    with client(url).responses.stream(input="Tell me about a fox.", max_output_tokens=16, **GREEDY) as stream:
        for _ in stream:
            pass


@check
def responses_logprobs(url):
    answer = respond(url, include=["message.output_text.logprobs"], top_logprobs=2)
    tokens = answer.output[0].content[0].logprobs
    assert len(tokens) == 16 and "".join(t.token for t in tokens) == answer.output_text, tokens
    assert all(len(t.top_logprobs) == 2 for t in tokens)


@check
def responses_errors(url):
    bad = openai.BadRequestError
    raises(bad, lambda: respond(url, previous_response_id="resp_1"), param="previous_response_id")
    raises(bad, lambda: respond(url, background=True), param="background")
    raises(bad, lambda: respond(url, input=[{"type": "item_reference", "id": "x"}]), param="input[0].type")
    raises(bad, lambda: respond(url, tools=[{"type": "web_search"}]), param="tools[0].type")
    raises(bad, lambda: client(url).responses.create(model="default"), param="input")
    raises(openai.NotFoundError, lambda: respond(url, model="gpt-9"), param="model")


main()
