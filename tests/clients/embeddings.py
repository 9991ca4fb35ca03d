"""The official `openai` package asks for embeddings."""

import openai
from suite import check, main, raises

TEXTS = ["A fox in the snow.", "A goose on the lake.", "A fox in the snow."]


def client(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@check
def one_vector_for_each_text(url):
    # The package asks for base64, unless told otherwise.
    answer = client(url).embeddings.create(model="default", input=TEXTS)
    vectors = [item.embedding for item in answer.data]
    assert [item.index for item in answer.data] == [0, 1, 2] and vectors[0] == vectors[2] != vectors[1]
    for vector in vectors:
        assert abs(sum(value * value for value in vector) - 1) < 1e-3, "vectors are normalized"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 10, answer.usage
    floats = client(url).embeddings.create(model="default", input=TEXTS[0], encoding_format="float")
    assert len(floats.data) == 1
    assert all(abs(a - b) < 1e-6 for a, b in zip(floats.data[0].embedding, vectors[0], strict=True))


@check
def errors(url):
    create = client(url).embeddings.create
    raises(openai.BadRequestError, lambda: create(model="default", input=[]))
    raises(openai.BadRequestError, lambda: create(model="default", input="fox", dimensions=5), param="dimensions")
    raises(openai.NotFoundError, lambda: create(model="gpt-9", input="fox"), param="model")


main()
