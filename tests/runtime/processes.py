"""Real replicas as real processes on 127.0.0.1; each one is ended by its pid, whatever happens."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench.clusters.local import free_port_numbers as free_ports

READY_WITHIN_S = 30
STOPS_WITHIN_S = 20
REGIONS = ["VA", "CA", "OR", "JP", "EU"]


class Replica:
    """One process."""

    def __init__(self, cluster, index, **options):
        self.index = index
        self.port = cluster.ports[index][2]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "epaxos"]
        if "prelude" in options:
            # Code that runs in the replica's process before the replica: it breaks something.
            code = options["prelude"] + "\nfrom epaxos.cli.main import main\nmain()\n"
            command = [sys.executable, "-c", code]
        command += ["serve", "--config", str(cluster.config), "--replica", str(index)]
        data = options.get("data", cluster.path / f"data{index}")
        if data is not None:
            command += ["--data", str(data)]
        command += options.get("flags", [])
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **options.get("environment", {})},
        )
        self.lines = []
        self.log = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in (
                (self.process.stdout, self.lines),
                (self.process.stderr, self.log),
            )
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream, lines):
        with stream:
            lines.extend(iter(stream.readline, ""))

    def wait_ready(self):
        limit = time.monotonic() + READY_WITHIN_S
        while not self.lines:
            assert self.process.poll() is None, f"ended: {''.join(self.log[-20:])}"
            assert time.monotonic() < limit, f"not ready: {''.join(self.log[-20:])}"
            time.sleep(0.01)
        return json.loads(self.lines[0])

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(STOPS_WITHIN_S)
        for reader in self._readers:
            reader.join(STOPS_WITHIN_S)

    def ended(self):
        """The exit code of a process that ends by itself, and its last line of log."""
        try:
            code = self.process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        for reader in self._readers:
            reader.join(STOPS_WITHIN_S)
        return code, self.log[-1].strip() if self.log else ""

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()[0]

    def http(self, method, path, body=None, headers=None, timeout=20):
        """(status, headers, body) of one request; status 0 where there was no answer."""
        request = urllib.request.Request(
            self.url + path, data=body, method=method, headers=headers or {}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()
        except OSError:
            return 0, {}, b""

    def put(self, key, value):
        return self.http("PUT", f"/v1/kv/{key}", value)[0]

    def get(self, key):
        status, _, body = self.http("GET", f"/v1/kv/{key}")
        return body if status == 200 else status

    def status(self):
        return json.loads(self.http("GET", "/v1/status")[2])


class ProcessCluster:
    """A configuration and its replicas: `with ProcessCluster(tmp_path, 3) as c`."""

    def __init__(self, path: Path, n: int, **settings):
        self.path = path
        self.n = n
        ports = free_ports(3 * n)
        self.ports = [tuple(ports[3 * i : 3 * i + 3]) for i in range(n)]
        self.config = path / "cluster.toml"
        self.write(**settings)
        self.replicas = {}
        self._all = []

    def write(self, **settings):
        settings = {"cluster": "test", "admin": True, **settings}
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        for region, (peer, client, http) in zip(REGIONS, self.ports):
            lines += [
                "[[replicas]]",
                f'region = "{region}"',
                f"peer_port = {peer}",
                f"client_port = {client}",
                f"http_port = {http}",
            ]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self, *indexes, **options):
        """Start replicas without waiting."""
        for index in indexes:
            self.replicas[index] = replica = Replica(self, index, **options)
            self._all.append(replica)
        return self.replicas[indexes[-1]]

    def start_all(self, **options):
        """Start all, and wait until each is ready."""
        self.start(*range(self.n), **options)
        return [self.replicas[i].wait_ready() for i in range(self.n)]

    def __getitem__(self, index):
        return self.replicas[index]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for replica in self._all:
            replica.kill()
