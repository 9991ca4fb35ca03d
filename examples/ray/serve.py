"""The interfaces of OpenAI and Anthropic on a Ray cluster, with as many replicas as requests ask for.

    python serve.py model.trit --port 8000 --max-replicas 8 --threads 4

Each replica runs `trit serve` on a free loopback port of its node, and hands requests to it and answers back, pieces of
streams as they come. Ray's proxy shares requests out, and starts and ends replicas by how many are under way. A replica
that is to end lets its answers end first. The bundle must be at the same path on every node.

serve.py is also an application for `serve deploy`: serve:application, with bundle, max_replicas and so on as its args.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from ray import serve
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

# What concerns one connection only, and lengths that are written anew.
HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "host",
    "content-length",
    "date",
}


@serve.deployment
class Replica:
    """A server in a child process, and the way to it."""

    def __init__(self, bundle: str, threads: int, slots: int, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "trit", "serve", bundle, "--listen", "127.0.0.1:0"]
        command += ["--threads", str(threads), "--slots", str(slots), *arguments]
        self.child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=_end_with_parent
        )
        assert self.child.stdout is not None
        self.said: deque[str] = deque(maxlen=20)
        self.url = ""
        for line in self.child.stdout:
            self.said.append(line)
            if found := re.search(r"listening on (http://\S+)", line):
                self.url = found[1]
                break
        else:
            raise RuntimeError(f"trit serve ended with {self.child.wait()}: {''.join(self.said)}")
        threading.Thread(target=self._drain, args=(self.child.stdout,), daemon=True).start()
        self.session: aiohttp.ClientSession | None = None

    def _drain(self, output: Any) -> None:
        """Hands on what the server logs, which would fill the pipe."""
        for line in output:
            self.said.append(line)
            print(line, end="", file=sys.stderr)

    def client(self) -> aiohttp.ClientSession:
        """Connections to the child. Answers may take long, and a session belongs to one event loop."""
        if self.session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
            connector = aiohttp.TCPConnector(limit=0)
            self.session = aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=False)
        return self.session

    async def check_health(self) -> None:
        """Ray replaces a replica whose server ended. While the bundle is loaded, the server answers 503, and is healthy."""
        if (code := self.child.poll()) is not None:
            raise RuntimeError(f"trit serve ended with {code}: {''.join(self.said)}")
        async with self.client().get(self.url + "/health"):
            pass

    async def __call__(self, request: Request) -> Response:
        target = self.url + request.url.path + (f"?{request.url.query}" if request.url.query else "")
        headers = {name: value for name, value in request.headers.items() if name not in HOP}
        body = await request.body()
        answer = await self.client().request(
            request.method, target, headers=headers, data=body, allow_redirects=False
        )

        async def pieces() -> AsyncIterator[bytes]:
            # Where the client goes away, this generator is closed, then the connection, and the server stops generating.
            try:
                async for piece in answer.content.iter_any():
                    yield piece
            finally:
                answer.close()

        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
        return StreamingResponse(pieces(), status_code=answer.status, headers=kept)

    def __del__(self) -> None:
        child = getattr(self, "child", None)
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGTERM)


def _end_with_parent() -> None:
    """The kernel ends the server with its replica, also where that is killed. 1 is PR_SET_PDEATHSIG of Linux."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def application(args: dict[str, Any]) -> serve.Application:
    """The application: bundle, and optionally threads, slots, min_replicas, max_replicas and arguments of `trit serve`."""
    threads, slots = int(args.get("threads", 2)), int(args.get("slots", 16))
    scaling = {
        "min_replicas": int(args.get("min_replicas", 1)),
        "max_replicas": int(args.get("max_replicas", 4)),
        # Requests that run together share the reading of weights, so that replicas are filled before there are more.
        "target_ongoing_requests": float(args.get("target_requests", slots / 2)),
        "upscale_delay_s": float(args.get("upscale_delay_s", 10)),
        "downscale_delay_s": float(args.get("downscale_delay_s", 300)),
    }
    deployment = Replica.options(
        autoscaling_config=scaling,
        # The server queues what has no slot, and answers 429 where its queue is full.
        max_ongoing_requests=slots * 4,
        ray_actor_options={"num_cpus": threads},
        graceful_shutdown_timeout_s=120,
    )
    bundle = str(Path(args["bundle"]).resolve())
    return deployment.bind(bundle, threads, slots, list(args.get("arguments", [])))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--threads", type=int, default=2, help="threads of a replica, and the CPUs that it takes"
    )
    parser.add_argument("--slots", type=int, default=16, help="requests that a replica runs together")
    parser.add_argument("--min-replicas", type=int, default=1)
    parser.add_argument("--max-replicas", type=int, default=4)
    parser.add_argument("arguments", nargs="*", help="arguments of `trit serve`, after --")
    options = parser.parse_args()
    serve.start(http_options={"host": options.host, "port": options.port})
    serve.run(application(vars(options)), name="trit", route_prefix="/", blocking=True)


if __name__ == "__main__":
    main()
