"""Runs the example configurations of nginx and HAProxy before three stand-ins for replicas, on loopback, and looks whether
requests go where docs/deploying.md says.

Usage: check-balancers.py NGINX HAPROXY, the paths of the two programs.
"""

import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
# Most seconds that anything here is waited for.
PATIENCE = 20


class Replica(BaseHTTPRequestHandler):
    """Answers as trit-run serve does, as far as a balancer can see it, and says which replica it is."""

    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(503 if self.server.draining else 200, b"{}")

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        if self.server.draining:
            return self.answer(503, b"draining")
        if self.path != "/stream":
            return self.answer(200, self.server.name.encode())
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in [b"data: first\n\n", b"data: last\n\n"]:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
            self.server.go_on.wait(PATIENCE)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A balancer that ends resets its connections."""


def start_replicas():
    replicas = []
    for name in ["first", "second", "third"]:
        replica = Server(("127.0.0.1", 0), Replica)
        replica.name, replica.draining, replica.go_on = name, False, threading.Event()
        threading.Thread(target=replica.serve_forever, daemon=True).start()
        replicas.append(replica)
    return replicas


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def with_ports(text, listen, replicas):
    """The example with the ports of this run."""
    ports = {8080: listen} | {8081 + i: replica.server_port for i, replica in enumerate(replicas)}
    text, count = re.subn(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{ports[int(found[1])]}", text)
    assert count == 4, count
    return text


def ask(port, prefix=None, path="/v1/chat/completions"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"content-type": "application/json"} | ({"x-trit-prefix": prefix} if prefix else {})
    connection.request("POST", path, b'{"messages": []}', headers)
    return connection.getresponse()


def name(port, prefix=None):
    response = ask(port, prefix)
    body = response.read().decode()
    assert response.status == 200, (response.status, body)
    return body


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.05)


def check(port, replicas, refused):
    """`refused` is how many requests may be, when a replica begins to drain."""
    prefixes = [f"prefix-{i}" for i in range(40)]
    places = {prefix: name(port, prefix) for prefix in prefixes}
    assert set(places.values()) == {"first", "second", "third"}, places
    for _ in range(3):
        assert {prefix: name(port, prefix) for prefix in prefixes} == places, "a prefix moved"
    assert len({name(port) for _ in range(40)}) == 3, "requests without a prefix are spread"

    # The first event arrives while the replica still holds the last one back.
    response = ask(port, "prefix-0", "/stream")
    assert response.readline() == b"data: first\n", "an event is held back"
    for replica in replicas:
        replica.go_on.set()
    assert b"data: last" in response.read()

    # A replica drains: its prefixes go to others, those of others stay.
    replicas[1].draining = True
    refusals = [ask(port, prefix).status for prefix in prefixes].count(503)
    assert refusals <= refused, f"{refusals} requests were refused"
    during = {prefix: name(port, prefix) for prefix in prefixes}
    assert "second" not in during.values()
    stay = [prefix for prefix in prefixes if places[prefix] != "second"]
    assert all(during[prefix] == places[prefix] for prefix in stay), "a prefix of another replica moved"
    # And when it is back they come back, however long the balancer has avoided it.
    replicas[1].draining = False
    until("the prefixes to come back", lambda: {prefix: name(port, prefix) for prefix in prefixes} == places)


def run(program, example, command, refused):
    replicas, port = start_replicas(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / example
        config.write_text(with_ports((HERE / example).read_text(), port, replicas))
        process = subprocess.Popen(command(program, config, folder))
        try:
            def listens():
                assert process.poll() is None, f"{program} ended"
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", port)) == 0
            until(f"{program} to listen", listens)
            check(port, replicas, refused)
        finally:
            process.terminate()
            process.wait(PATIENCE)
    print(f"{example}: prefixes stay with their replica, streams pass, draining replicas are passed over")


def nginx(program, config, folder):
    # As whoever runs this, with everything that it writes in one folder.
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    config.write_text(config.read_text().replace("http {", "http { " + paths, 1))
    user = "user root;" if os.geteuid() == 0 else ""
    return [program, "-c", config, "-e", "stderr", "-g", f"daemon off; pid {folder}/pid; {user}"]


def haproxy(program, config, _):
    return [program, "-db", "-f", config]


if __name__ == "__main__":
    run(sys.argv[1], "nginx.conf", nginx, refused=0)
    run(sys.argv[2], "haproxy.cfg", haproxy, refused=1)
