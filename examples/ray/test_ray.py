"""Batch generation and serving on a local cluster of two nodes, with workers that are killed."""

import json
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="ray cannot be imported here: examples/ray is not tested")

import batch
import serve as example
from ray import serve
from ray.cluster_utils import Cluster

import trit

CHECKPOINT = Path(__file__).resolve().parents[1] / "models" / "fables-12m"
ROWS = 48
OPTIONS = {"max_tokens": 120, "temperature": 0.0, "seed": 0, "threads": 1, "trust": False, "chat": False}
COLUMNS = {"id": "id", "column": "prompt", "batch_size": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a bundle and prompts; what trusts the bundle is in it too, for workers as well."""
    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TRIT_TRUST_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
            patch.setenv(name, str(folder / name))
        # Results are compared with those of this process, and none is to be sent anywhere.
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        trit.compile(CHECKPOINT, folder / "model.trit")
        words = ["The sea", "Once upon a time", "The old man", "A ship"]
        with open(folder / "prompts.jsonl", "w", encoding="utf-8") as file:
            for i in range(ROWS):
                file.write(
                    json.dumps({"id": f"row {i}", "prompt": f"{words[i % 4]} number {i}", "other": i}) + "\n"
                )
        yield folder


@pytest.fixture(scope="module")
def cluster(folder):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3})
    cluster.add_node(num_cpus=3)
    ray.init(address=cluster.address, log_to_driver=False)
    cluster.wait_for_nodes()
    yield cluster
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


def descendants(title: str) -> list[int]:
    """Processes that this one started, or that those started, with this in their command line."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat, line = (entry / "stat").read_text(), (entry / "cmdline").read_text()
        except OSError:
            continue
        parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
        titles[int(entry.name)] = line
    found = []
    for process, line in titles.items():
        above = process
        while above > 1 and above != os.getpid():
            above = parents.get(above, 0)
        if above == os.getpid() and title in line:
            found.append(process)
    return found


def wait_for(what, seconds=120):
    """What `what` returns, once that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def run(folder, output, **changes):
    options = OPTIONS | COLUMNS | changes
    return batch.run(str(folder / "model.trit"), str(folder / "prompts.jsonl"), str(output), **options)


def test_every_row_comes_back_once_though_a_worker_is_killed(folder, cluster):
    output = folder / "answers"
    counts = []
    work = threading.Thread(target=lambda: counts.append(run(folder, output)))
    work.start()
    wait_for(lambda: list(output.glob("part-*.jsonl")))
    workers = wait_for(lambda: descendants("MapWorker"))
    os.kill(workers[0], signal.SIGKILL)
    before = len(list(batch.results(output)))
    assert before < ROWS, "the worker was killed too late to be missed"
    work.join()
    rows = list(batch.results(output))
    assert counts == [ROWS]
    assert sorted(row["id"] for row in rows) == sorted(f"row {i}" for i in range(ROWS))
    with trit.Model(folder / "model.trit", threads=1) as model:
        for row in rows[::7]:
            assert row["text"] == model.generate(row["prompt"], max_tokens=120, temperature=0).text
            assert row["tokens"] == 120 or row["finish"] == "stop"


def test_only_what_is_missing_is_generated(folder, cluster):
    output = folder / "answers"
    before = {row["id"]: row for row in batch.results(output)}
    assert run(folder, output) == 0
    part = sorted(output.glob("part-*.jsonl"))[1]
    lost = [json.loads(line)["id"] for line in part.read_text().splitlines()]
    # As a program that was killed while it wrote leaves it.
    part.rename(part.with_suffix(".unfinished"))
    assert run(folder, output) == len(lost)
    rows = list(batch.results(output))
    assert len(rows) == ROWS and {row["id"]: row for row in rows} == before


def test_rows_that_cannot_be_generated_have_an_error(folder, cluster):
    source = folder / "long.jsonl"
    prompts = ["short", "far too long " * 2000, "short too"]
    source.write_text(
        "".join(json.dumps({"key": i, "text": prompt}) + "\n" for i, prompt in enumerate(prompts))
    )
    options = OPTIONS | {"id": "key", "column": "text", "batch_size": 3}
    assert batch.run(str(folder / "model.trit"), str(source), str(folder / "long"), **options) == 3
    rows = {row["id"]: row for row in batch.results(folder / "long")}
    assert "context" in rows[1]["error"] and rows[0]["text"] and rows[2]["text"]


def test_datasets_that_do_not_fit_are_refused(folder, cluster):
    with pytest.raises(ValueError, match="has no column question: see --id and --column"):
        run(folder, folder / "none", column="question")
    source = folder / "twice.jsonl"
    source.write_text('{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}\n')
    with pytest.raises(ValueError, match="1 rows of .* have an id in 'id' that another row has"):
        batch.run(str(folder / "model.trit"), str(source), str(folder / "none"), **OPTIONS | COLUMNS)


def ask(url, timeout=120, **request):
    data = json.dumps({"model": "model", "temperature": 0, **request}).encode()
    headers = {"Content-Type": "application/json"}
    return urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=timeout)


def replicas() -> int:
    status = serve.status().applications["trit"].deployments["Replica"]
    return status.replica_states.get("RUNNING", 0)


def test_replicas_answer_as_openai_does_and_come_and_go(folder, cluster):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    arguments = {
        "bundle": folder / "model.trit",
        "threads": 1,
        "slots": 2,
        "max_replicas": 2,
        "target_requests": 1,
    }
    arguments |= {"upscale_delay_s": 0.5, "downscale_delay_s": 2, "arguments": ["--log", "error"]}
    serve.run(example.application(arguments), name="trit", route_prefix="/")
    address = f"http://127.0.0.1:{port}"
    url = address + "/v1/completions"

    def ready():
        try:
            return urllib.request.urlopen(address + "/health", timeout=10).status == 200
        except urllib.error.URLError:
            return False

    wait_for(ready)
    with trit.Model(folder / "model.trit", threads=1) as model:
        expected = model.generate("The sea", max_tokens=30, temperature=0).text
    models = json.load(urllib.request.urlopen(address + "/v1/models", timeout=10))["data"]
    assert [model["id"] for model in models] == ["model"]
    whole = json.load(ask(url, prompt="The sea", max_tokens=30))
    assert whole["choices"][0]["text"] == expected
    streamed, events = "", 0
    for line in ask(url, prompt="The sea", max_tokens=30, stream=True):
        if line.startswith(b"data: {"):
            events += 1
            streamed += json.loads(line[6:])["choices"][0]["text"]
    assert streamed == expected and events > 5
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(url, prompt="The sea", temperature="hot")
    assert refused.value.code == 400 and "temperature" in json.load(refused.value)["error"]["message"]

    # Many requests at a time: a second replica comes, and goes when there are none.
    assert replicas() == 1
    stop = threading.Event()

    def keep_asking(i):
        texts = set()
        while not stop.is_set():
            texts.add(json.load(ask(url, prompt=f"The sea {i}", max_tokens=300))["choices"][0]["text"])
        return texts

    with ThreadPoolExecutor(6) as pool:
        asking = [pool.submit(keep_asking, i) for i in range(6)]
        try:
            wait_for(lambda: replicas() == 2)
        finally:
            stop.set()
        assert all(len(each.result()) == 1 for each in asking)
    wait_for(lambda: replicas() == 1)

    # A server that is killed is replaced with its replica.
    servers = wait_for(lambda: descendants("trit\0serve"))
    os.kill(servers[0], signal.SIGKILL)

    def answers():
        try:
            return json.load(ask(url, prompt="The sea", max_tokens=30))["choices"][0]["text"] == expected
        except (urllib.error.URLError, ConnectionError):
            return False

    wait_for(lambda: servers[0] not in descendants("trit\0serve") and answers())
