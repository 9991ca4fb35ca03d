"""Generates for every row of a dataset, on all nodes of a Ray cluster, and goes on where it was stopped.

    python batch.py model.trit prompts.jsonl answers --column prompt --max-tokens 200

Each row needs a value of its own in the column that --id names. On every node one actor maps the bundle once, and
generates for a batch of rows at a time, which its engine runs together. This program alone writes results, batch by batch,
each to a file of its own in the output folder; so nodes need no common disk, but the bundle at the same path. What
another worker's end loses is generated again by Ray, and arrives here once. Started again, the program leaves out rows that
have results. A row that cannot be generated, such as one longer than the model's context, has an "error" instead of "text".
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

import trit


class Generate:
    """The actor: a bundle that is mapped once, and batches of rows."""

    def __init__(self, bundle: str, options: dict[str, Any]) -> None:
        self.model = trit.Model(bundle, threads=options["threads"], trust=options["trust"], mmap=True)
        self.chat = options["chat"]
        self.options = {
            "max_tokens": options["max_tokens"],
            "temperature": options["temperature"],
            "seed": options["seed"],
        }

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[Any]]:
        prompts = [str(prompt) for prompt in batch["prompt"]]
        results = self.generate(prompts)
        return {
            "id": list(batch["id"]),
            "prompt": prompts,
            # Rows as texts, because those with errors have other fields.
            "result": [json.dumps(result) for result in results],
        }

    def generate(self, prompts: list[str]) -> list[dict[str, Any]]:
        """A result for each prompt. A batch that fails is run row by row, so that only the rows at fault have errors."""
        try:
            texts = [
                self.model.apply_chat_template([{"role": "user", "content": p}]) if self.chat else p
                for p in prompts
            ]
            answers = self.model.generate(texts, **self.options)
        except (trit.TritError, ValueError) as error:
            if len(prompts) == 1:
                return [{"error": str(error)}]
            return [result for prompt in prompts for result in self.generate([prompt])]
        return [{"text": a.text, "tokens": len(a.ids), "finish": a.finish} for a in answers]


def results(folder: Path) -> Iterator[dict[str, Any]]:
    """All rows that were written."""
    for part in sorted(folder.glob("part-*.jsonl")):
        for line in part.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def write_part(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows to the next file, which is there as a whole or not at all."""
    used = [int(part.stem.removeprefix("part-")) for part in folder.glob("part-*.jsonl")]
    part = folder / f"part-{max(used, default=-1) + 1:08}.jsonl"
    unfinished = part.with_suffix(".unfinished")
    with open(unfinished, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(part)


def read(source: str) -> ray.data.Dataset:
    """A dataset of Parquet, CSV or JSON lines."""
    if source.endswith(".parquet"):
        return ray.data.read_parquet(source)
    if source.endswith(".csv"):
        return ray.data.read_csv(source)
    return ray.data.read_json(source)


def run(
    bundle: str, source: str, output: str, *, id: str, column: str, batch_size: int, **options: Any
) -> int:
    """Generates what is missing, and returns how many rows that were.

    Raises ValueError where a column is missing, or an id is there twice.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    rows = read(source)
    missing = {id, column} - set(rows.columns() or [])
    if missing:
        raise ValueError(f"{source} has no column {', '.join(sorted(missing))}: see --id and --column")
    if duplicates := rows.count() - len(rows.unique(id)):
        raise ValueError(
            f"{duplicates} rows of {source} have an id in {id!r} that another row has: results go by ids"
        )
    done = {row["id"] for row in results(folder)}
    names = {id: "id", column: "prompt"}
    todo = rows.filter(lambda row: row[id] not in done).select_columns([id, column]).rename_columns(names)

    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    nodes = [cpus for cpus in nodes if cpus >= 2] or nodes
    # An actor a node: it takes all CPUs but one, which is for what reads the dataset.
    cpus = max(1, int(min(nodes)) - 1)
    generated = todo.map_batches(
        Generate,
        fn_constructor_args=(str(Path(bundle).resolve()), options),
        batch_size=batch_size,
        concurrency=(1, len(nodes)),
        num_cpus=cpus,
    )
    count = 0
    for batch in generated.iter_batches(batch_size=None, prefetch_batches=0, batch_format="numpy"):
        each = zip(batch["id"], batch["prompt"], batch["result"], strict=True)
        part = [
            {"id": _plain(id), "prompt": str(prompt), **json.loads(result)} for id, prompt, result in each
        ]
        # A block that holds no row, because all of its rows were done.
        if part:
            write_part(folder, part)
            count += len(part)
    return count


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("source", help="Parquet, CSV or JSON lines")
    parser.add_argument("output", help="folder of results")
    parser.add_argument("--id", default="id", help="column of ids")
    parser.add_argument("--column", default="prompt", help="column of prompts")
    parser.add_argument(
        "--chat", action="store_true", help="prompts are what a user says, and the chat template is used"
    )
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=16, help="rows that an actor runs together")
    parser.add_argument("--threads", type=int, help="of an actor; as many as the node grants")
    parser.add_argument(
        "--trust", action="store_true", help="run machine code of a bundle that was compiled elsewhere"
    )
    parser.add_argument(
        "--address", help="of the Ray cluster; without it, the one that this node is in, or a new one"
    )
    arguments = vars(parser.parse_args())
    ray.init(address=arguments.pop("address"))
    count = run(**arguments)
    folder = Path(arguments["output"])
    errors = sum("error" in row for row in results(folder))
    print(
        f"{count} rows generated, {sum(1 for _ in results(folder))} in {folder}, {errors} of them with an error"
    )


if __name__ == "__main__":
    main()
