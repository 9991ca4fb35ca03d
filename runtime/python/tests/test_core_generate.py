"""Generation: as a whole, piece by piece, several at once, with rules, grammars and processors."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import trit

PROMPTS = ["Once upon a time", "The crow said", "A long time ago, in the woods, there"]


def test_pieces_are_the_whole(model: trit.Model) -> None:
    whole = model.generate(PROMPTS[0], max_tokens=40, temperature=0)
    assert whole.text and len(whole.ids) <= 40 and whole.finish in {"stop", "length"}
    assert whole.prompt_tokens == len(model.tokenize(PROMPTS[0]))
    assert whole.seconds >= 0 and whole.prompt_seconds >= 0
    assert str(whole) == whole.text and "tokens" in repr(whole)
    stream = model.generate(PROMPTS[0], max_tokens=40, temperature=0, stream=True)
    assert stream.result is None
    pieces = list(stream)
    assert "".join(map(str, pieces)) == whole.text
    assert [piece.id for piece in pieces if piece.id is not None] == whole.ids
    result = stream.result
    assert result is not None and result.text == whole.text and "ended" in repr(stream)
    assert list(stream) == []


def test_the_seed_decides(model: trit.Model) -> None:
    first = model.generate(PROMPTS[0], max_tokens=20, temperature=1.0, seed=7)
    assert (
        first.seed == 7
        and first.ids == model.generate(PROMPTS[0], max_tokens=20, temperature=1.0, seed=7).ids
    )
    others = {tuple(model.generate(PROMPTS[0], max_tokens=20, temperature=1.0).ids) for _ in range(3)}
    assert len(others) > 1
    random = model.generate(PROMPTS[0], max_tokens=20, temperature=1.0)
    assert model.generate(PROMPTS[0], max_tokens=20, temperature=1.0, seed=random.seed).ids == random.ids


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 0.9, "seed": 3, "top_p": 0.9}])
def test_each_of_several_gets_what_it_gets_alone(model: trit.Model, options: dict) -> None:
    prompts = [*PROMPTS, model.tokenize(PROMPTS[1])]
    together = model.generate(prompts, max_tokens=30, **options)
    assert [answer.ids for answer in together] == [
        model.generate(prompt, max_tokens=30, **options).ids for prompt in prompts
    ]
    stream = model.generate(prompts, max_tokens=30, stream=True, **options)
    texts = [""] * len(prompts)
    for piece in stream:
        texts[piece.index] += piece.text
    assert texts == [answer.text for answer in together]
    assert [answer.ids for answer in stream.result or []] == [answer.ids for answer in together]


def test_many_prompts_wait_for_slots(model: trit.Model) -> None:
    prompts = [[1 + at % 50, 2] for at in range(300)]
    answers = model.generate(prompts, max_tokens=2, temperature=0, ignore_eos=True)
    assert [len(answer.ids) for answer in answers] == [2] * 300


def test_stop_texts_end_the_text(model: trit.Model) -> None:
    whole = model.generate(PROMPTS[0], max_tokens=60, temperature=0, ignore_eos=True).text or ""
    word = whole.split()[5]
    cut = model.generate(PROMPTS[0], max_tokens=60, temperature=0, ignore_eos=True, stop=word)
    assert cut.text == whole[: whole.find(word)] and cut.finish == "stop"
    assert model.generate(PROMPTS[0], max_tokens=60, temperature=0, stop=["zzzz", word]).text == cut.text


def test_limits_and_ends(model: trit.Model) -> None:
    assert model.generate(PROMPTS[0], max_tokens=0).ids == []
    five = model.generate(PROMPTS[0], max_tokens=5, temperature=0, ignore_eos=True)
    assert len(five.ids) == 5 and five.finish == "length"
    endless = model.generate(PROMPTS[0], max_tokens=None, temperature=0)
    assert endless.finish in {"stop", "length"}


def test_biases_decide(model: trit.Model) -> None:
    assert set(model.generate(PROMPTS[0], max_tokens=8, logit_bias={11: 1e6}, temperature=0).ids) == {11}
    first = model.generate(PROMPTS[0], max_tokens=1, temperature=0).ids[0]
    assert (
        model.generate(PROMPTS[0], max_tokens=1, temperature=0, logit_bias={first: float("-inf")}).ids[0]
        != first
    )
    every = {id: float("-inf") for id in range(model.vocab_size)}
    with pytest.raises(trit.SuppressedError) as error:
        model.generate(PROMPTS[0], logit_bias=every)
    assert error.value.tokens == len(model.tokenize(PROMPTS[0]))


def test_probabilities_are_those_of_the_logits(model: trit.Model) -> None:
    answer = model.generate(PROMPTS[0], max_tokens=3, temperature=0, logprobs=4)
    assert answer.logprobs is not None and len(answer.logprobs) == len(answer.ids)
    logits = model.logits(PROMPTS[0])[-1].astype(np.float64)
    expected = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    logprob, top = answer.logprobs[0]
    assert abs(logprob - expected[answer.ids[0]]) < 1e-5 and len(top) == 4
    assert [id for id, _ in top] == list(np.argsort(-expected, kind="stable")[:4])


def test_processors_change_logits(model: trit.Model) -> None:
    seen = []

    def watch(ids: np.ndarray, logits: np.ndarray) -> None:
        assert ids.dtype == np.int64 and logits.dtype == np.float32 and logits.flags.writeable
        seen.append((ids.tolist(), logits.copy()))

    plain = model.generate(PROMPTS[0], max_tokens=6, temperature=0)
    watched = model.generate(PROMPTS[0], max_tokens=6, temperature=0, logits_processor=watch)
    assert watched.ids == plain.ids and watched.text == plain.text
    prompt = model.tokenize(PROMPTS[0])
    assert seen[0][0] == prompt and seen[1][0] == prompt + plain.ids[:1]
    np.testing.assert_array_equal(seen[0][1], model.logits(PROMPTS[0])[-1])

    def only(_: np.ndarray, logits: np.ndarray) -> np.ndarray:
        new = np.full_like(logits, -np.inf)
        new[[7, 9]] = 1.0
        return new

    def not_seven(_: np.ndarray, logits: np.ndarray) -> None:
        logits[7] = -np.inf

    both = model.generate(PROMPTS, max_tokens=3, temperature=1.0, logits_processor=[only, not_seven])
    assert [answer.ids for answer in both] == [[9, 9, 9]] * 3


def test_processed_sampling_is_the_same_as_any(model: trit.Model) -> None:
    nothing = lambda ids, logits: None  # noqa: E731
    for options in [{"temperature": 0.8, "seed": 5, "top_k": 20}, {"temperature": 0, "repeat_penalty": 1.3}]:
        plain = model.generate(PROMPTS, max_tokens=15, **options)
        processed = model.generate(PROMPTS, max_tokens=15, logits_processor=nothing, **options)
        assert [answer.ids for answer in processed] == [answer.ids for answer in plain]
        assert [answer.finish for answer in processed] == [answer.finish for answer in plain]


def test_errors_of_processors_come_out(model: trit.Model) -> None:
    class Mine(Exception):
        pass

    def fails(ids: np.ndarray, logits: np.ndarray) -> None:
        raise Mine

    with pytest.raises(Mine):
        model.generate(PROMPTS[0], logits_processor=fails)
    for result, error in [
        (np.zeros(3, np.float32), ValueError),
        (np.zeros(model.vocab_size), TypeError),
        ("text", TypeError),
        (np.full(model.vocab_size, np.nan, np.float32), ValueError),
        (np.full(model.vocab_size, np.inf, np.float32), ValueError),
    ]:
        with pytest.raises(error, match="result of logits_processor"):
            model.generate(PROMPTS[0], logits_processor=lambda ids, logits, result=result: result)
    with pytest.raises(trit.SuppressedError):
        none = np.full(model.vocab_size, -np.inf, np.float32)
        model.generate(PROMPTS[0], logits_processor=lambda ids, logits: none)


def test_answers_follow_what_they_must(model: trit.Model) -> None:
    schema = {
        "type": "object",
        "properties": {"animal": {"enum": ["fox", "crow"]}, "age": {"type": "integer", "maximum": 99}},
        "required": ["animal", "age"],
        "additionalProperties": False,
    }
    for form in [schema, json.dumps(schema)]:
        answer = model.generate("An animal:", json_schema=form, max_tokens=100, temperature=0)
        value = json.loads(answer.text or "")
        assert value["animal"] in {"fox", "crow"} and isinstance(value["age"], int)
    assert (model.generate("A number:", regex="[0-9]{4}", max_tokens=20).text or "").isdigit()
    assert model.generate("Choose:", choices=["fox", "crow"], max_tokens=20).text in {"fox", "crow"}
    lark = model.generate("Yes or no?", grammar='start: "yes" | "no"', max_tokens=20)
    assert lark.text in {"yes", "no"}
    masked = model.generate(
        "Yes or no?", grammar='start: "yes" | "no"', max_tokens=20, logits_processor=lambda ids, logits: None
    )
    assert masked.text in {"yes", "no"}


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"regex": "("}, trit.GuideError, "regex"),
        ({"grammar": "nonsense"}, trit.GuideError, "grammar"),
        ({"json_schema": {"type": "nothing"}}, trit.GuideError, "json_schema"),
        ({"json_schema": "{"}, ValueError, "json_schema"),
        ({"json_schema": {"a": {1, 2}}}, TypeError, "json_schema"),
        ({"regex": "a", "grammar": "b"}, TypeError, "exclude"),
        ({"after": "a"}, ValueError, "after"),
        ({"temperatur": 1}, TypeError, "did you mean temperature"),
        ({"temperature": float("nan")}, ValueError, "temperature"),
        ({"temperature": "hot"}, TypeError, "temperature"),
        ({"temperature": -1}, ValueError, "temperature"),
        ({"temperature": True}, TypeError, "temperature"),
        ({"temperature": 10**400}, ValueError, "temperature"),
        ({"max_tokens": -1}, ValueError, "max_tokens"),
        ({"max_tokens": 1.5}, TypeError, "max_tokens"),
        ({"top_p": 1.5}, ValueError, "top_p"),
        ({"top_k": -1}, ValueError, "top_k"),
        ({"min_p": -0.1}, ValueError, "min_p"),
        ({"repeat_penalty": 0}, ValueError, "repeat_penalty"),
        ({"presence_penalty": 3}, ValueError, "presence_penalty"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 1 << 64}, ValueError, "seed"),
        ({"stop": ""}, ValueError, "stop"),
        ({"stop": [1]}, TypeError, r"stop\[0\]"),
        ({"logit_bias": {-1: 0}}, ValueError, "logit_bias"),
        ({"logit_bias": {1: float("nan")}}, ValueError, r"logit_bias\[1\]"),
        ({"logit_bias": [1]}, TypeError, "logit_bias"),
        ({"logits_processor": 3}, TypeError, "logits_processor"),
        ({"logprobs": 1000}, ValueError, "logprobs"),
        ({"stream": 1}, TypeError, "stream"),
    ],
)
def test_wrong_options_are_named(model: trit.Model, options: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        model.generate("a", **options)


@pytest.mark.parametrize(
    "prompt, error, words",
    [
        ([], ValueError, "prompt is empty"),
        ([1, -1], ValueError, r"prompt\[1\]"),
        ([1, 1 << 40], ValueError, r"prompt\[1\]"),
        ([1, 2.0], TypeError, r"prompt\[1\]"),
        ([True], TypeError, r"prompt\[0\]"),
        ([["a"]], TypeError, r"prompt\[0\]\[0\]"),
        ([[]], ValueError, r"prompt\[0\] is empty"),
        (["a", 3], TypeError, r"prompt\[1\]"),
        (None, TypeError, "prompt"),
        (b"bytes", TypeError, "prompt"),
        (3, TypeError, "prompt"),
        (np.array(3), TypeError, "prompt"),
        (np.array([1.5]), TypeError, "prompt"),
        ("a\ud800", ValueError, "surrogate"),
        ({"a": 1}, TypeError, "prompt"),
    ],
)
def test_wrong_prompts_are_named(model: trit.Model, prompt: object, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        model.generate(prompt, max_tokens=1)  # type: ignore[call-overload]


def test_a_stream_may_be_left(model: trit.Model) -> None:
    for _ in model.generate(PROMPTS[0], max_tokens=500, ignore_eos=True, stream=True):
        break
    with model.generate(PROMPTS[0], max_tokens=500, ignore_eos=True, stream=True) as stream:
        next(stream)
    assert list(stream) == [] and stream.result is None
    stream.close()
    # What was left takes no slot.
    assert model.generate(PROMPTS[0], max_tokens=2, temperature=0, ignore_eos=True).finish == "length"


def test_a_model_is_closed_while_threads_use_it(bundle: Path) -> None:
    for _ in range(5):
        model = trit.Model(bundle)
        ended = []

        def work(model: trit.Model = model) -> None:
            try:
                while True:
                    model.generate(PROMPTS, max_tokens=50, ignore_eos=True)
                    model.logits([5] * 100)
            except trit.ClosedError:
                ended.append(True)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        model.close()
        for thread in threads:
            thread.join()
        assert ended == [True] * 4


def test_eight_threads_share_a_model(model: trit.Model) -> None:
    prompts = [f"{prompt} {number}" for number, prompt in enumerate(PROMPTS * 3)][:8]
    alone = [model.generate(prompt, max_tokens=25, temperature=0).ids for prompt in prompts]
    logits = [model.logits(prompt) for prompt in prompts]
    failures = []

    def work(number: int) -> None:
        try:
            for _ in range(3):
                assert model.generate(prompts[number], max_tokens=25, temperature=0).ids == alone[number]
                np.testing.assert_array_equal(model.logits(prompts[number]), logits[number])
                pieces = model.generate(prompts[number], max_tokens=25, temperature=0, stream=True)
                assert [piece.id for piece in pieces if piece.id is not None] == alone[number]
                sequence = model.sequence(prompts[number])
                np.testing.assert_array_equal(
                    sequence.append([alone[number][0]]),
                    model.logits(sequence.ids)[-1],
                )
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
