"""The server as a client sees it: answers, refusals, load, the end."""

import asyncio
import base64
import contextlib
import csv
import io
import json
import re
import shutil
import signal
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.bundle import Bundle, digest
from src.serve import _hosts, main
from tests.cli.conftest import draw
from tests.helpers import require_module
from tests.odd_pictures import write_odd_pictures
from tests.server import Server, form, serving


@pytest.fixture(scope="module", autouse=True)
def _packages() -> None:
    for name in ("fastapi", "uvicorn", "python_multipart", "onnxruntime"):
        require_module(name)


@pytest.fixture(scope="module")
def server(exported: Path) -> Iterator[Server]:
    with serving(exported, "--max_mb=1", "--max_megapixels=1", "--max_files=4") as found:
        yield found


@pytest.fixture
def picture(tmp_path: Path) -> bytes:
    draw(tmp_path / "a.png", 0, 5)
    return (tmp_path / "a.png").read_bytes()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


class TestAnswers:
    def test_a_picture(self, server: Server, exported: Path, picture: bytes) -> None:
        answer = server.send(("a.png", picture))
        assert answer.status == 200
        bundle = Bundle(exported)
        shares = bundle.probabilities(bundle.pixels(io.BytesIO(picture))[None])
        assert answer.json == {
            "predictions": [
                {
                    "name": "a.png",
                    "predicted_class": bundle.classes[int(bundle.predicted(shares)[0])],
                    "probabilities": {
                        "ant": pytest.approx(float(shares[0, 0]), abs=1e-6),
                        "bug": pytest.approx(float(shares[0, 1]), abs=1e-6),
                    },
                    "error": None,
                }
            ]
        }

    def test_json_is_as_good_as_a_form(self, server: Server, picture: bytes) -> None:
        text = base64.b64encode(picture).decode()
        body = json.dumps({"pictures": [text, f"data:image/png;base64,{text}"]}).encode()
        answer = server.ask("POST", "/predict", body, {"Content-Type": "application/json"})
        wanted = server.send(("", picture)).json["predictions"][0]
        assert answer.json["predictions"] == [wanted, wanted]

    def test_odd_pictures_are_those_of_the_command(
        self, server: Server, exported: Path, tmp_path: Path
    ) -> None:
        bundle = Bundle(exported)
        for path in write_odd_pictures(tmp_path / "odd"):
            found = server.send((path.name, path.read_bytes())).json["predictions"][0]
            shares = bundle.probabilities(bundle.pixels(path)[None])[0]
            assert list(found["probabilities"].values()) == pytest.approx(shares, abs=1e-6), path

    def test_one_bad_among_several(self, server: Server, picture: bytes) -> None:
        answer = server.send(("a.png", picture), ("b.txt", b"hello"))
        assert answer.status == 200
        good, bad = answer.json["predictions"]
        assert good["predicted_class"]
        assert (bad["error"], bad["predicted_class"]) == ("not a picture", None)

    def test_base64_in_lines(self, server: Server, picture: bytes) -> None:
        text = base64.encodebytes(picture).decode()
        assert text.count("\n") > 1
        body = json.dumps({"pictures": [text]}).encode()
        answer = server.ask("POST", "/predict", body, {"Content-Type": "application/json"})
        assert answer.status == 200

    @pytest.mark.parametrize("path", ["/", "/health", "/validation"])
    def test_heads(self, path: str, server: Server) -> None:
        answer = server.ask("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")

    def test_an_explanation_of_another_class(
        self, server: Server, exported: Path, picture: bytes
    ) -> None:
        own = server.send(("a.png", picture), path="/explain").json
        (other,) = {"ant", "bug"} - {own["explained_class"]}
        assert own["explained_class"] == own["prediction"]["predicted_class"]
        found = server.send(("a.png", picture), path=f"/explain?of={other}").json
        assert found["explained_class"] == other
        assert np.allclose(found["falls"], -np.array(own["falls"]), atol=2e-4)  # of two classes
        answer = server.send(("a.png", picture), path="/explain?of=nobody")
        assert (answer.status, answer.json["detail"]) == (
            422, "The model knows no class of that name."
        )  # fmt: skip

    def test_an_explanation(self, server: Server, exported: Path, picture: bytes) -> None:
        found = server.send(("a.png", picture), path="/explain").json
        assert np.array(found["falls"]).shape == (8, 8)
        assert found["picture"].startswith("data:image/png;base64,")
        shown = base64.b64decode(found["picture"].partition(",")[2])
        wanted = Bundle(exported).pixels(io.BytesIO(picture))
        assert (np.asarray(Image.open(io.BytesIO(shown))) == wanted).all()
        assert len(found["neighbours"]) == 6
        ranks = [near["similarity"] for near in found["neighbours"]]
        assert ranks == sorted(ranks, reverse=True)
        small = server.ask("GET", f"/validation/{found['neighbours'][0]['id']}")
        assert Image.open(io.BytesIO(small.body)).size == (32, 32)

    def test_a_validation_picture_is_its_own_nearest(self, server: Server, trained: Path) -> None:
        """The picture itself, found among those of its run."""
        with (trained / "samples.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
        root = Path(json.loads((trained / "run.json").read_text())["data"]["root"])
        data = (root / rows[2]["path"]).read_bytes()
        nearest = server.send(("x", data), path="/explain").json["neighbours"][0]
        assert nearest["id"] == 2
        assert nearest["label"] == rows[2]["label"]
        assert nearest["similarity"] == pytest.approx(1, abs=1e-3)

    def test_what_it_tells_of_itself(self, server: Server, exported: Path) -> None:
        assert server.ask("GET", "/health").json == {"status": "ok"}
        about = server.ask("GET", "/metadata").json
        assert about["preprocessing"]["classes"] == ["ant", "bug"]
        assert about["limits"] == {"bytes": 10**6, "pixels": 10**6, "files": 4, "seconds": 30}
        known = server.ask("GET", "/validation").json
        held = Bundle(exported).validation
        assert known["labels"] == held["labels"].tolist()
        assert known["probabilities"] == held["probabilities"][:, 1].tolist()
        assert known["tops"] == held["probabilities"].argmax(axis=1).tolist()
        assert known["threshold"] == Bundle(exported).record.threshold

    def test_the_page_and_its_parts(self, server: Server) -> None:
        page = server.ask("GET", "/")
        assert page.headers["content-type"].startswith("text/html")
        names = re.findall(r'(?:src|href)="/?(assets/[^"]+)"', page.body.decode())
        assert names
        for name in names:
            assert server.ask("GET", f"/{name}").status == 200

    def test_headers_for_safety(self, server: Server) -> None:
        for path in ("/", "/health", "/nothing", "/validation/5"):
            headers = server.ask("GET", path).headers
            assert headers["content-security-policy"].startswith("default-src 'self'")
            assert headers["x-content-type-options"] == "nosniff"
            assert "server" not in headers


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "detail"),
        [
            (b"", r"x\.png: empty file\."),
            (b"GIF89a", r"x\.png: broken header\."),
            (png_header(2000, 2000), r"x\.png: too many pixels \(at most 1,000,000 are read\)\."),
            (png_header(60_000, 60_000), r"x\.png: too many pixels"),
            (b"\x89PNG\r\n\x1a\n" + b"x" * 99, r"x\.png: (broken|truncated)"),
        ],
        ids=["empty", "cut", "large", "bomb", "noise"],
    )
    @pytest.mark.parametrize("path", ["/predict", "/explain"])
    def test_damaged_pictures(self, path: str, data: bytes, detail: str, server: Server) -> None:
        answer = server.send(("x.png", data), path=path)
        assert answer.status == 422
        assert re.fullmatch(detail + ".*", answer.json["detail"])

    def test_a_jpeg_that_is_decoded_over_and_over(self, server: Server) -> None:
        file = io.BytesIO()
        Image.new("RGB", (64, 64)).save(file, "JPEG", progressive=True)
        data = file.getvalue()
        assert server.send(("good.jpg", data)).status == 200
        last = data[data.rindex(b"\xff\xda") : -2]
        hides = b"\xff\xdd\0\4\0\1" + last + b"\xff\2\xff\xff"  # decoders know no such length
        for more in (200 * last, hides + 200 * last, 20_000 * b"\xff\xfe\0\2"):
            answer = server.send(("many.jpg", data[:-2] + more + data[-2:]))
            assert answer.status == 422
            assert (
                answer.json["detail"] == "many.jpg: its JPEG data has too many scans or segments."
            )

    @pytest.mark.parametrize(
        ("charset", "name"),
        [("UTF8", "ü.png"), ('"ISO-8859-1"', "Ã¼.png"), ("utf-7", None), ("punycode", None)],
    )
    def test_charsets_of_a_form(
        self, charset: str, name: str | None, server: Server, picture: bytes
    ) -> None:
        """Python knows charsets that take minutes, and some whose texts no answer can say."""
        body, headers = form(("ü.png", picture))
        kind = {"Content-Type": f"{headers['Content-Type']}; charset={charset}"}
        answer = server.ask("POST", "/predict", body, kind)
        if name is None:
            assert answer.status == 415
            assert answer.json["detail"] == ("A form's charset may be utf-8, us-ascii, iso-8859-1.")
        else:
            assert answer.json["predictions"][0]["name"] == name

    def test_json_of_many_small_things(self, server: Server) -> None:
        body = b'{"pictures": [' + b"[]," * 1000 + b"[]]}"
        answer = server.ask("POST", "/predict", body, {"Content-Type": "application/json"})
        assert (answer.status, answer.json["detail"]) == (
            413, "More than 4 pictures were sent; a request takes 4 at most."
        )  # fmt: skip

    def test_a_truncated_picture(self, server: Server, picture: bytes) -> None:
        answer = server.send(("x.png", picture[: len(picture) // 2]))
        assert answer.status == 422
        assert "truncated" in answer.json["detail"]

    @pytest.mark.parametrize(
        ("body", "kind", "status", "detail"),
        [
            (b"x", "text/plain", 415, r"The body is text/plain; send multipart/form-data or"),
            (b"x", "", 415, r"The body is of no kind"),
            (b"{", "application/json", 400, r"The body is no JSON"),
            (b"[" * 10**5, "application/json", 400, r"The body is no JSON"),
            (b"\xff\xfe", "application/json", 400, r"The body is no JSON"),
            (b"[]", "application/json", 422, r'The JSON must be \{"pictures"'),
            (b'{"pictures": [1]}', "application/json", 422, r"The JSON must be"),
            (b'{"pictures": []}', "application/json", 422, r"No picture was sent"),
            (b'{"pictures": ["%%%"]}', "application/json", 422, r"A picture is no base64"),
            (b'{"pictures": ["aGk="]}', "application/json", 422, r"Not a picture\."),
            (b'{"pictures": ["", "", "", "", ""]}', "application/json", 413, r"5 pictures were"),
            (b"x", "multipart/form-data", 400, r"."),
            (b"x", "multipart/form-data; boundary=b", 400, r"."),
            (b"--b--\r\n", "multipart/form-data; boundary=b", 422, r"No picture was sent"),
            (
                b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nhi\r\n--b--\r\n',
                "multipart/form-data; boundary=b",
                422,
                r"Not a picture\.",
            ),
        ],
    )
    def test_damaged_bodies(
        self, body: bytes, kind: str, status: int, detail: str, server: Server
    ) -> None:
        headers = {"Content-Type": kind} if kind else {}
        answer = server.ask("POST", "/predict", body, headers)
        assert answer.status == status, answer.body
        assert re.match(detail, answer.json["detail"])

    def test_too_many_files(self, server: Server, picture: bytes) -> None:
        for number, told in ((5, "5"), (6, "More than 4"), (40, "More than 4")):
            answer = server.send(*[("a.png", picture)] * number)
            assert answer.status == 413
            wanted = f"{told} pictures were sent; a request takes 4 at most."
            assert answer.json == {"detail": wanted}

    @pytest.mark.parametrize(
        ("method", "path", "status", "detail"),
        [
            ("GET", "/nothing", 404, "There is nothing at this address."),
            ("GET", "/predict", 405, "This address takes another method."),
            ("GET", "/validation/99", 404, "There is no such picture."),
            ("GET", "/validation/x", 422, "number: Input should be a valid integer"),
        ],
    )
    def test_addresses(
        self, method: str, path: str, status: int, detail: str, server: Server
    ) -> None:
        answer = server.ask(method, path)
        assert answer.status == status
        assert answer.json["detail"].startswith(detail)

    def test_a_body_that_says_it_is_too_large(self, server: Server) -> None:
        answer = server.send(("a.png", b"x" * 1_100_000))
        assert answer.status == 413
        assert answer.json["detail"] == "The body is too large; 1 MB are allowed."

    def test_a_body_that_grows_too_large(self, server: Server) -> None:
        """Without a length: it is counted while it comes."""
        connection = server.connect()
        connection.putrequest("POST", "/predict")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.putheader("Content-Type", "application/json")
        connection.endheaders()
        with contextlib.suppress(OSError):  # it may have closed before all was sent
            for _ in range(90):
                connection.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        answer = None
        with contextlib.suppress(OSError):  # on some systems the answer is lost by then
            answer = connection.getresponse().status
        connection.close()
        assert answer in ((413,) if sys.platform == "linux" else (413, None))
        assert server.ask("GET", "/health").status == 200

    @pytest.mark.parametrize("name", ["../../etc/passwd", "a\\b", "%2e%2e%2fserve.py", "serve.py"])
    def test_path_tricks(self, name: str, server: Server) -> None:
        for path in (f"/assets/{name}", f"/validation/{name}"):
            answer = server.ask("GET", path.replace("\\", "%5c"))
            assert answer.status in (404, 422)
            assert b"root:" not in answer.body

    def test_no_path_of_the_server_in_any_answer(self, server: Server, exported: Path) -> None:
        answers = [
            server.ask("GET", path) for path in ("/metadata", "/validation", "/openapi.json")
        ]
        answers += [server.send(("/etc/passwd", b"x")), server.ask("GET", "/validation/99")]
        for answer in answers:
            assert str(exported.parent).encode() not in answer.body
            assert b"/src/" not in answer.body

    def test_another_name_of_this_host(self, server: Server) -> None:
        """What a page elsewhere would call it by, after DNS rebinding."""
        answer = server.ask("GET", "/health", headers={"Host": "evil.example:8000"})
        assert answer.status == 400
        assert answer.json["detail"] == "This server goes by another name."
        assert server.ask("GET", "/health", headers={"Host": "localhost:1"}).status == 200

    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    def test_a_page_of_another_server(self, site: str, server: Server) -> None:
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
        answer = server.ask("GET", "/validation/0", headers=headers)
        assert answer.status == 403
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        link = {**headers, "Sec-Fetch-Mode": "navigate"}
        assert server.ask("GET", "/", headers=link).status == 200
        assert server.ask("POST", "/predict", b"{}", link).status == 403

    def test_huge_headers_and_noise(self, server: Server) -> None:
        for data in (
            b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
            b"\x16\x03\x01\x00\r\n",
        ):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
                try:
                    raw.sendall(data)
                    first = raw.recv(100)
                except OSError:
                    first = b""
                assert not first or re.match(rb"HTTP/1\.1 4\d\d", first)
        assert server.ask("GET", "/health").status == 200


def test_large_pictures_leave_room_for_small_ones(exported: Path, picture: bytes) -> None:
    """While four of 16 megapixels are decoded, small ones are answered, not only before them."""
    file = io.BytesIO()
    Image.new("I;16", (4000, 4000)).save(file, "PNG")
    with serving(exported) as found, ThreadPoolExecutor(1) as pool:
        large = pool.submit(found.send, *[("16.png", file.getvalue())] * 4)
        between = 0
        while not large.done():
            assert found.send(("a.png", picture)).status == 200
            between += not large.done()
        assert large.result().status == 200
    assert between > 2


def first_of(server: Server, data: bytes) -> bytes:
    """Send bytes and keep the connection; return what comes first, nothing if it is ended."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        raw.sendall(data)
        return raw.recv(4096)


def held(port: int, peer: int) -> bool:
    """Return whether the system holds the end at `port` of a connection with another port."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(
        int(row[1].rsplit(":", 1)[1], 16) == port and int(row[2].rsplit(":", 1)[1], 16) == peer
        for row in rows
    )


POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def hasty(exported: Path) -> Iterator[Server]:
    with serving(exported, "--max_seconds=1.5") as found:
        yield found


class TestSlowClients:
    def test_half_a_body(self, hasty: Server) -> None:
        assert first_of(hasty, POST + b"Content-Length: 99\r\n\r\n{").startswith(b"HTTP/1.1 408")

    def test_a_large_body_that_never_comes(self, hasty: Server) -> None:
        answer = first_of(hasty, POST + b"Content-Length: 20000001\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413")

    @pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost: loc"], ids=["none", "half"])
    def test_no_whole_head(self, data: bytes, hasty: Server) -> None:
        assert first_of(hasty, data) == b""

    def test_a_body_whose_rest_never_comes_after_the_answer(self, hasty: Server) -> None:
        head = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", hasty.port), timeout=20) as raw:
            raw.sendall(head)
            assert raw.recv(4096).startswith(b"HTTP/1.1 404")
            raw.sendall(b"x")
            while raw.recv(4096):  # until the server ends it
                pass

    @pytest.mark.skipif(sys.platform != "linux", reason="not on this system: /proc")
    def test_answers_that_nobody_reads(self, hasty: Server) -> None:
        """More than all buffers hold: the system ends the connection, and forgets it."""
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect(("127.0.0.1", hasty.port))
            raw.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                for _ in range(10_000):
                    raw.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            end = time.monotonic() + 60
            while held(hasty.port, raw.getsockname()[1]):
                assert time.monotonic() < end, "the connection is still held"
                time.sleep(0.1)
        assert hasty.ask("GET", "/health").status == 200

    def test_more_silent_connections_than_are_taken(self, server: Server) -> None:
        with contextlib.ExitStack() as held:
            for _ in range(530):
                held.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            assert server.ask("GET", "/health").status == 200


def test_many_at_once(server: Server, exported: Path, tmp_path: Path) -> None:
    """Each of 8 clients gets the answers of its own pictures, bad ones in between."""
    bundle = Bundle(exported)
    files = [tmp_path / f"{k}.png" for k in range(16)]
    for k, path in enumerate(files):
        draw(path, k % 2, k)
    wanted = [bundle.probabilities(bundle.pixels(path)[None])[0] for path in files]
    data = [path.read_bytes() for path in files]

    def client(number: int) -> float:
        worst = 0.0
        for k in range(20):
            at = (number * 7 + k) % len(files)
            found = server.send((f"{at}", data[at])).json["predictions"][0]
            assert found["name"] == str(at)
            shares = list(found["probabilities"].values())
            worst = max(worst, float(np.abs(shares - wanted[at]).max()))
            if k % 5 == 0:
                assert server.send(("bad", data[at][:50])).status == 422
        return worst

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(client, range(8))) < 1e-5


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process at once there")
def test_sigterm_lets_what_is_under_way_be_answered(exported: Path, picture: bytes) -> None:
    with serving(exported) as server:
        body, headers = form(("a.png", picture))
        connection = server.connect()
        connection.putrequest("POST", "/predict")
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders(body[:50])
        for _ in range(3):  # what was sent before is then read as well
            assert server.ask("GET", "/health").status == 200
        deadline = time.monotonic() + 30
        server.process.send_signal(signal.SIGTERM)
        while time.monotonic() < deadline:  # until it takes no new ones
            try:
                server.ask("GET", "/health")
            except OSError:
                break
            time.sleep(0.05)
        connection.send(body[50:])
        with contextlib.closing(connection):
            answer = connection.getresponse()
            assert answer.status == 200
            assert json.loads(answer.read())["predictions"][0]["name"] == "a.png"
        assert server.process.wait(30) == 143
        assert server.process.stderr is not None
        assert server.process.stderr.read() == "stopped by SIGTERM\n"


@pytest.mark.parametrize(
    ("bound", "asked", "names"),
    [
        ("127.0.0.1", "localhost", {"127.0.0.1", "localhost", "[::1]"}),
        ("127.0.0.2", "127.0.0.2", {"127.0.0.1", "localhost", "[::1]", "127.0.0.2"}),
        ("127.0.1.1", "My-Laptop", {"127.0.0.1", "localhost", "[::1]", "127.0.1.1", "my-laptop"}),
        ("[::1]", "::1", {"127.0.0.1", "localhost", "[::1]"}),
        ("0.0.0.0", "0.0.0.0", set()),
        ("[fe80::1%eth0]", "fe80::1%eth0", set()),
    ],
)
def test_names_of_the_server(bound: str, asked: str, names: set[str]) -> None:
    assert _hosts(bound, asked) == names


class TestMistakes:
    def test_a_port_that_is_taken(
        self, server: Server, exported: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(exported), "--port", str(server.port)]) == 2
        assert re.search(r"--port \d+: .*in use.*\. Give another port", capsys.readouterr().err)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--port", "99999"], r"--port is 99999; allowed is 0 to 65535"),
            (["--port", "x"], r"invalid int value: 'x'"),
            (["--max_files", "0"], r"--max_files is 0; it must be from 1 on"),
            (["--max_seconds", "-1"], r"--max_seconds is -1; it must be a number above 0"),
            (["--threads", "0"], r"--threads is 0; allowed is 1 to 256"),
            (["--threads", "100000"], r"--threads is 100000; allowed is 1 to 256"),
            (["--max_mb", "inf"], r"--max_mb is inf; it must be a number above 0"),
        ],
    )
    def test_words(
        self, words: list[str], message: str, exported: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(exported), *words]) == 2
        assert re.search(message, capsys.readouterr().err)

    def test_a_host_that_nobody_knows(
        self, exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unknown(*words: object, **more: object) -> None:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr("src.serve.socket.getaddrinfo", unknown)
        assert main([str(exported), "--host", "nowhere"]) == 2
        assert "--host nowhere --port 8000: [Errno -2] Name or service" in capsys.readouterr().err

    def test_validation_pictures_that_do_not_fit(
        self, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy = Path(shutil.copytree(exported, tmp_path / "copy"))
        path, record = copy / "validation.npz", json.loads((copy / "bundle.json").read_text())
        path.write_bytes(b"PK no zip")
        record["files"]["validation.npz"]["sha256"] = digest(path)
        (copy / "bundle.json").write_text(json.dumps(record))
        assert main([str(copy)]) == 2
        assert re.search(r"validation\.npz is damaged \(BadZipFile", capsys.readouterr().err)

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("image_size", 48, r"pixels is of the shape \[32, 32, 3\], not \[48, 48, 3\]"),
            ("classes", ["ant", "bug", "cat"], "a threshold of 0.5, and 3 classes"),
        ],
    )
    def test_a_record_that_does_not_fit(
        self,
        field: str,
        value: object,
        message: str,
        exported: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        copy = Path(shutil.copytree(exported, tmp_path / "copy"))
        record = json.loads((copy / "bundle.json").read_text())
        record["preprocessing"][field] = value
        record["threshold"] = 0.5
        (copy / "bundle.json").write_text(json.dumps(record))
        assert main([str(copy)]) == 2
        assert re.search(message, capsys.readouterr().err)

    def test_a_bundle_that_was_changed(
        self, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        copy = Path(shutil.copytree(exported, tmp_path / "copy"))
        with (copy / "model.onnx").open("ab") as file:
            file.write(b"x")
        assert main([str(copy)]) == 2
        assert "model.onnx is not the file that bundle.json was written with" in (
            capsys.readouterr().err
        )


def test_no_upload_is_written_to_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.requests import Request

    from src.uploads import read_uploads

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    data = bytes(3_000_000)
    body, headers = form(("a.png", data))
    scope = {
        "type": "http", "method": "POST",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }  # fmt: skip

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    (upload,) = asyncio.run(read_uploads(Request(scope, receive), 1))
    assert upload.data == data


def test_threads_end_with_the_server(exported: Path, picture: bytes) -> None:
    """Whatever `make_app` starts ends with the lifespan."""
    from src.served_model import ServedModel, Settings
    from src.uploads import Upload

    before = threading.active_count()
    model = ServedModel(Bundle(exported), Settings())
    asyncio.run(model.explain(Upload("a.png", picture)))
    assert threading.active_count() > before + 1
    model.close()
    assert threading.active_count() == before
