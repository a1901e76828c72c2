"""A server under load and under nonsense: a bounded form here, the long one in `make campaign`."""

import contextlib
import http.client
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bundles import write_bundle
from tests.helpers import require_module
from tests.malformed import MAKERS, malformed
from tests.server import Server, form, serving

CLIENTS = 16


@pytest.fixture(scope="module", autouse=True)
def _packages() -> None:
    for name in ("fastapi", "uvicorn", "python_multipart", "onnxruntime"):
        require_module(name)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place, weights = tmp_path_factory.mktemp("bundle") / "b", [[0, 0, 4], [4, 0, 0]]
    return write_bundle(place, ("blue", "red"), weights)


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    with serving(bundle, "--max_seconds=10") as found:
        yield found


@pytest.fixture(scope="module")
def hasty(bundle: Path) -> Iterator[Server]:
    """It waits a second for what never comes."""
    with serving(bundle, "--max_seconds=1") as found:
        yield found


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for k in range(8):
        pixels = np.random.default_rng(k).integers(0, 256, (120, 160, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.jpg", quality=85)
        made.append((folder / f"{k}.jpg").read_bytes())
    return made


def memory_mb(server: Server) -> float:
    """Return the resident memory of the server's process; 0 where that can't be told."""
    path = Path(f"/proc/{server.process.pid}/status")
    if not path.exists():
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", path.read_text())
    assert found is not None
    return int(found[1]) / 1024


def bombard(server: Server, pictures: list[bytes], requests: int) -> list[float]:
    """Send requests from CLIENTS clients that each keep a connection; return the seconds of each.

    Every answer must be the picture's own.
    """
    wanted = [server.send((f"{k}", data)).json["predictions"] for k, data in enumerate(pictures)]
    numbers = iter(range(requests))
    lock = threading.Lock()

    def client() -> list[float]:
        connection, taken = server.connect(), []
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                connection.close()
                return taken
            at = number % len(pictures)
            body, headers = form((f"{at}", pictures[at]))
            start = time.perf_counter()
            connection.request("POST", "/predict", body, headers)
            answer = connection.getresponse()
            content = answer.read()
            taken.append(time.perf_counter() - start)
            assert answer.status == 200, content
            assert_same(content, wanted[at])

    with ThreadPoolExecutor(CLIENTS) as pool:
        found = [pool.submit(client) for _ in range(CLIENTS)]
        return [seconds for one in found for seconds in one.result()]


def assert_same(content: bytes, wanted: list[dict[str, object]]) -> None:
    (found,), (other,) = json.loads(content)["predictions"], wanted
    assert found["name"] == other["name"]
    assert found["predicted_class"] == other["predicted_class"]
    assert found["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


def answer_to(server: Server, data: bytes) -> int | None:
    """Send bytes as they are, and keep the connection; return the status of the answer.

    None if the connection was ended without one; an answer that never comes is a TimeoutError.
    """
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        try:
            with contextlib.suppress(ConnectionError):  # it may have been refused before its end
                raw.sendall(data)
            first = raw.recv(4096)
        except ConnectionError:
            return None
    found = re.match(rb"HTTP/1\.[01] (\d\d\d)", first)
    assert found is not None or not first, first
    return int(found[1]) if found else None


Answers = Counter[tuple[str, int | None]]  # by kind of request and status; None: no answer


def harass(server: Server, picture: bytes, requests: int, seed: int) -> Answers:
    """Send malformed requests, and a good one after every tenth; return what was answered."""
    draw = random.Random(seed)
    found: Answers = Counter()
    for number in range(requests):
        name, data = malformed(draw, picture)
        status = answer_to(server, data)
        known = refused(status) or (name, status) in _HARMLESS
        assert known or (name in _CUT and status is None), (name, status, data[:300])
        found[name, status] += 1
        if number % 10 == 0:
            assert server.send(("good", picture)).status == 200
    assert server.process.poll() is None
    kinds = {make.__name__ for make in MAKERS}
    assert kinds == {name for name, status in found if refused(status)}
    return found


def refused(status: int | None) -> bool:
    return status is not None and 400 <= status < 500


# A picture may still be whole after a byte of its header was changed, or name itself oddly.
_HARMLESS = {("garbled_header", 200), ("path_trick", 200)}
# No request at all, or one whose rest is still on its way when it is refused.
_CUT = {"broken_http", "wrong_length"}


def test_many_requests(server: Server, pictures: list[bytes]) -> None:
    assert len(bombard(server, pictures, 320)) == 320


def test_malformed_requests(hasty: Server, pictures: list[bytes]) -> None:
    assert sum(harass(hasty, pictures[0], 150, seed=0).values()) == 150


def test_a_client_that_leaves_early(server: Server, pictures: list[bytes]) -> None:
    body, headers = form(("a", pictures[0]))
    for cut in (0, 10, len(body) // 2):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.putrequest("POST", "/predict")
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders(body[:cut])
        connection.close()
    assert server.send(("good", pictures[0])).status == 200


# 413 is no refusal to schemathesis: a form that is wrong, and has too many parts besides.
_REFUSALS = [400, 403, 404, 405, 408, 413, 415, 422]


def schemathesis(server: Server, examples: int) -> subprocess.CompletedProcess[str]:
    """Let it make requests of the OpenAPI document's forms, right ones and wrong ones, from here.

    That a request of the right form is accepted can't hold: no schema says what a picture is.
    """
    text = f"[checks.negative_data_rejection]\nexpected-statuses = {_REFUSALS}\n"
    Path("schemathesis.toml").write_text(text)
    program = Path(sys.executable).with_name("schemathesis")
    words = [program, "run", f"{server.url}/openapi.json", "--seed=1", "--no-color"]
    words += ["--exclude-checks=positive_data_acceptance", f"--max-examples={examples}"]
    return subprocess.run(words, capture_output=True, text=True, timeout=1200)


def test_the_openapi_document_is_kept_to(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_module("schemathesis")
    monkeypatch.chdir(tmp_path)
    ended = schemathesis(server, 10)
    assert ended.returncode == 0, ended.stdout[-3000:]
    assert "Tested: 6" in ended.stdout


@pytest.mark.campaign
def test_the_openapi_document_at_length(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = schemathesis(server, 300)
    with capsys.disabled():
        print("\n" + "\n".join(ended.stdout.splitlines()[-8:]))
    assert ended.returncode == 0, ended.stdout[-3000:]


@pytest.mark.campaign
def test_ten_thousand_requests(
    server: Server, pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    bombard(server, pictures, 1000)
    before, start = memory_mb(server), time.perf_counter()
    seconds = bombard(server, pictures, 10_000)
    total, after = time.perf_counter() - start, memory_mb(server)
    middle, late = np.quantile(seconds, [0.5, 0.99])
    with capsys.disabled():
        print(
            f"\n10,000 requests of {CLIENTS} clients: {10_000 / total:.0f} a second, p50 "
            f"{1000 * middle:.1f} ms, p99 {1000 * late:.1f} ms, memory {before:.1f} MB, then "
            f"{after:.1f} MB"
        )
    assert len(seconds) == 10_000
    assert after < before + 30


@pytest.mark.campaign
def test_two_thousand_malformed_requests(
    hasty: Server, pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    before = memory_mb(hasty)
    found = harass(hasty, pictures[0], 2_000, seed=1)
    with capsys.disabled():
        statuses = Counter({status: 0 for _, status in found})
        for (_, status), number in found.items():
            statuses[status] += number
        print(f"\n2,000 malformed requests: {dict(statuses)}, memory {before:.1f} -> "
              f"{memory_mb(hasty):.1f} MB")  # fmt: skip
    if sys.platform == "linux":
        assert memory_mb(hasty) < before + 100
