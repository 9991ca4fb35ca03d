"""Compiles a checkpoint, unless it is a bundle already, and continues a text.

usage: python generate.py [MODEL] [PROMPT]
"""

import sys
import tempfile
from pathlib import Path

import trit

SHIPPED = Path(__file__).parent.parent / "models" / "fables-12m"


def main(model: Path, prompt: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundle = model
        if model.suffix != ".trit":
            bundle = Path(folder) / f"{model.stem}.trit"
            compiled = trit.compile(model, bundle)
            weights, size = compiled.ternary_weights / 1e6, compiled.bytes / 1e6
            print(f"{compiled.name}: {weights:.1f} M ternary weights, {size:.1f} MB")
        with trit.Model(bundle) as loaded:
            print(prompt, end="", flush=True)
            stream = loaded.generate(prompt, max_tokens=64, temperature=0.8, top_k=60, seed=4, stream=True)
            for piece in stream:
                print(piece.text, end="", flush=True)
            generated = stream.result
            if generated is not None:
                speed = len(generated.ids) / generated.seconds if generated.seconds else 0.0
                print(f"\n{len(generated.ids)} tokens, {speed:.0f} a second, ended by {generated.finish}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        Path(arguments[0]) if arguments else SHIPPED,
        arguments[1] if len(arguments) > 1 else "Once upon a time there was",
    )
