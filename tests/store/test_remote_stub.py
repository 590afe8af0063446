"""A store on a service across a socket: what an object store gives (put, get, list, delete) is all that it takes."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from policysmith.errors import CheckpointError
from policysmith.store import PolicyStore
from tests.store.workers import small_policy, values_of


class Service(BaseHTTPRequestHandler):
    """Objects by path, in memory; it refuses whatever `refuses` says of a method and a path."""

    def handle_one(self) -> None:
        server, name = self.server, self.path.lstrip("/")
        size = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(size)
        if server.refuses(self.command, name):
            return self.answer(503)
        if self.command == "PUT":
            server.objects[name] = (content, datetime.now(UTC).isoformat())
            return self.answer(200)
        if self.command == "POST":  # a listing
            found = {key: (len(c), time) for key, (c, time) in list(server.objects.items()) if key.startswith(name)}
            return self.answer(200, json.dumps(found).encode())
        if name not in server.objects:
            return self.answer(404)
        if self.command == "DELETE":
            return self.answer(200 if server.objects.pop(name, None) else 404)
        return self.answer(200, server.objects[name][0])

    do_GET = do_PUT = do_POST = do_DELETE = handle_one

    def answer(self, code: int, content: bytes = b"") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


class StubFiles(AbstractFileSystem):
    """What fsspec's own file systems do, for the service above: `stub://host:port/…`."""

    protocol = "stub"
    cachable = False

    def _ask(self, method: str, path: str, content: bytes = b"") -> bytes:
        address, _, name = self._strip_protocol(path).partition("/")
        connection = HTTPConnection(address, timeout=20)
        try:
            connection.request(method, f"/{name}", content)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status == 404:
            raise FileNotFoundError(path)
        if response.status != 200:
            raise ConnectionError(f"the service says {response.status}")
        return answer

    def _listed(self, path: str) -> list[dict]:
        address = self._strip_protocol(path).partition("/")[0]
        found = json.loads(self._ask("POST", path))
        return [
            {"name": f"{address}/{name}", "size": size, "type": "file", "time": time}
            for name, (size, time) in found.items()
        ]

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **_):
        return [entry["name"] for entry in self._listed(path)]

    def info(self, path, **_):
        path = self._strip_protocol(path)
        entry = next((entry for entry in self._listed(path) if entry["name"] == path), None)
        if entry is None:
            raise FileNotFoundError(path)
        return entry

    def modified(self, path):
        return datetime.fromisoformat(self.info(path)["time"])

    def cat_file(self, path, start=None, end=None, **_):
        return self._ask("GET", path)

    def pipe_file(self, path, value, mode="overwrite", **_):
        self._ask("PUT", path, value)

    def rm_file(self, path):
        self._ask("DELETE", path)


@pytest.fixture
def service():
    fsspec.register_implementation("stub", StubFiles, clobber=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.daemon_threads = True
    server.objects, server.refuses = {}, lambda method, name: False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def uri(service):
    return f"stub://127.0.0.1:{service.server_port}/bucket/policies"


def test_a_policy_goes_there_and_comes_back(uri, service):
    store = PolicyStore(uri)
    first = store.save(small_policy(1), name="a", step=1, metrics={"value": 1}, tags=["good"])
    store.save(small_policy(2), name="a", step=2, metrics={"value": 2}, parents=[first])
    other = PolicyStore(uri)
    assert [r.step for r in other.find("best:value")] == [2] and other.get("tag:good") == first
    assert sorted(values_of(other)) == [1, 2]
    assert len([name for name in service.objects if name.endswith(".safetensors")]) == 4, "trunk and value are shared"
    other.untag(first, "good")
    other.remove("best:value")
    assert [r.step for r in store.find()] == [1] and store.find("tag:good") == []
    assert len(store.gc(grace=0).files) == 1 and store.verify() == []
    assert not any("sqlite" in name or "lock" in name for name in service.objects)


def test_writers_at_once_lose_nothing(uri):
    def save(number: int) -> None:
        PolicyStore(uri).save(small_policy(number), name="a", metrics={"value": number})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, range(8)))
    assert sorted(values_of(PolicyStore(uri))) == list(range(8))


def test_a_service_that_fails_is_named_and_nothing_half_saved_is_listed(uri, service):
    store = PolicyStore(uri)
    store.save(small_policy(1), name="a", metrics={"value": 1})
    for folder in ("objects", "tags", "records"):
        service.refuses = lambda method, name, folder=folder: method == "PUT" and f"/{folder}/" in name
        with pytest.raises(CheckpointError, match=rf"{folder}/.*the service says 503"):
            store.save(small_policy(2), name="b", metrics={"value": 2}, tags=["late"])
        service.refuses = lambda method, name: False
        assert values_of(PolicyStore(uri)) == [1] and store.find("tag:late") == []
    service.refuses = lambda method, name: method == "GET" and name.endswith(".safetensors")
    with pytest.raises(CheckpointError, match="safetensors: ConnectionError"):
        PolicyStore(uri).load()
    service.refuses = lambda method, name: False
    assert len(store.gc(grace=0).files) == 2 and store.verify() == [], "weights of the failed saves, and their tag"


def test_what_is_shared_is_written_anew_before_a_clean_up_could_take_it(uri, service):
    store = PolicyStore(uri)
    store.save(small_policy(1), name="a", metrics={"value": 1})
    old = {name: (content, "2020-01-01T00:00:00+00:00") for name, (content, _) in service.objects.items()}
    service.objects.update(old)
    store.save(small_policy(1), name="b", metrics={"value": 1})
    young = [name for name, (_, time) in service.objects.items() if not time.startswith("2020")]
    assert len([name for name in young if "/objects/" in name]) == 4
