"""A `trit-run serve` for the tests, and what stands between it and the browser where a network is to be slow or broken."""

import http.client
import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """`trit-run serve` on loopback, until it is closed. `more`: further options."""

    def __init__(self, program, bundle, *more, port=0):
        command = [program, "serve", bundle, "--listen", f"127.0.0.1:{port}", *more]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.said, listening = [], threading.Event()

        def read():
            for line in self.process.stdout:
                self.said.append(line.decode(errors="replace"))
                if re.search(r"http://127\.0\.0\.1:\d+", self.said[-1]):
                    listening.set()
            listening.set()

        threading.Thread(target=read, daemon=True).start()
        listening.wait(60)
        found = re.search(r"http://127\.0\.0\.1:(\d+)", "".join(self.said))
        assert found, f"{' '.join(command)} does not listen: {''.join(self.said)}"
        self.url, self.port = found[0], int(found[1])
        until = time.monotonic() + 60
        while self.ask("/health")[0] != 200:
            assert time.monotonic() < until, f"the model is not loaded: {''.join(self.said)}"
            time.sleep(0.05)

    def ask(self, path, body=None, method=None, **headers):
        """Status, headers and body of an answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()} | {"content-type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    def close(self):
        self.process.kill()
        self.process.wait()


class Between:
    """Passes requests on to a server and answers back, line by line.

    `pause`: seconds before each line of an answer. `faults`: what the next answers to questions are instead, each a status,
    headers and a body. `cut`: after how many lines the next answer breaks off. `gone`: answers whose reader went away.
    """

    def __init__(self, server):
        self.server, self.pause, self.faults, self.cut, self.gone = server, 0, [], None, 0
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def pass_on(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                self.close_connection = True
                try:
                    if self.command == "POST" and between.faults:
                        status, headers, text = between.faults.pop(0)
                        self.begin(status, headers.items())
                        self.wfile.write(text.encode())
                        return
                    onward = http.client.HTTPConnection("127.0.0.1", between.server.port, timeout=60)
                    kept = {k: v for k, v in self.headers.items() if k.lower() in ("content-type", "authorization", "if-none-match")}
                    onward.request(self.command, self.path, body or None, kept)
                    self.relay(onward)
                except (BrokenPipeError, ConnectionResetError):
                    between.gone += 1

            def relay(self, onward):
                answer = onward.getresponse()
                left_out = ("connection", "transfer-encoding", "content-length")
                self.begin(answer.status, [(k, v) for k, v in answer.getheaders() if k.lower() not in left_out])
                cut, between.cut = (between.cut, None) if self.command == "POST" else (None, between.cut)
                lines = 0
                try:
                    while line := answer.readline():
                        if between.pause and self.command == "POST":
                            time.sleep(between.pause)
                        self.wfile.write(line)
                        lines += 1
                        if cut is not None and lines >= cut:
                            return
                finally:
                    # Which tells the server that nobody reads any more.
                    onward.close()

            def begin(self, status, headers):
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("connection", "close")
                self.end_headers()

            do_GET = do_POST = pass_on

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                between.gone += 1

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def stream(*deltas, finish="stop", end="data: [DONE]\n\n"):
    """An answer as the server streams it, of texts, or of objects for deltas that are more than text."""
    events = [{"choices": [{"index": 0, "delta": d if isinstance(d, dict) else {"content": d}}]} for d in deltas]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    events.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": len(deltas), "total_tokens": 5 + len(deltas)}})
    return 200, {"content-type": "text/event-stream"}, "".join(f"data: {json.dumps(event)}\n\n" for event in events) + end
