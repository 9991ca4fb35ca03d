"""Answers that follow a JSON schema, and a rule for tokens that is written in Python.

usage: python constrained.py BUNDLE
"""

import json
import sys

import numpy as np
from numpy.typing import NDArray

import trit


def main(bundle: str) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "maximum": 120},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    with trit.Model(bundle) as model:
        answer = model.generate("A person:", json_schema=schema, max_tokens=200, temperature=0.0)
        print(json.loads(answer.text or ""))

        seen: set[int] = set()

        def never_twice(ids: NDArray[np.int64], logits: NDArray[np.float32]) -> None:
            """Forbids every token that the text has already."""
            seen.update(ids.tolist())
            logits[list(seen)] = -np.inf

        varied = model.generate("The fox", max_tokens=20, temperature=0.0, logits_processor=never_twice)
        assert len(set(varied.ids)) == len(varied.ids)
        print(repr(varied.text))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
