"""The command that follows a run: what its server gives away, and to whom."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from src import watch
from src.errors import UserError
from src.watch import Server, check_folder, main, open_server, parser
from tests.helpers import ROOT
from tests.watched_run import draw, mistakes, row, serving, write_run

Answer = tuple[int, dict[str, str], bytes]


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a picture and a list of mistakes, and what must not be seen."""
    folder = tmp_path / "run"
    write_run(folder, row(0, 20, 10))
    draw(folder, "worst-epoch-1.png")
    (folder / "pictures/notes.txt").write_text("a secret")
    (folder / "run.json").write_text('{"wandb_id": "a secret"}')
    mistakes(folder, path=str(tmp_path / "elsewhere/1.png"), sheet="worst-epoch-1.png")
    return folder


class TestServer:
    def test_what_it_serves(self, run: Path) -> None:
        with serving(run) as server:
            for path, kind in (
                ("/", "text/html; charset=utf-8"),
                ("/watch.css", "text/css; charset=utf-8"),
                ("/watch.js", "text/javascript; charset=utf-8"),
                ("/watch.svg", "image/svg+xml"),
                ("/state.json", "application/json"),
                ("/pictures/worst-epoch-1.png?12.5", "image/png"),
            ):
                code, headers, content = ask(server, path)
                assert (code, headers["Content-Type"]) == (200, kind)
                assert len(content) == int(headers["Content-Length"]) > 0
                assert headers["Content-Security-Policy"].startswith("default-src 'self';")
                assert headers["X-Content-Type-Options"] == "nosniff"
                assert headers["Server"].strip() == "waggle"
            assert json.loads(ask(server, "/state.json")[2])["name"] == "run"
            content = ask(server, "/pictures/worst-epoch-1.png")[2]
            assert content == (run / "pictures/worst-epoch-1.png").read_bytes()

    @pytest.mark.parametrize(
        "path",
        [
            "/config.yaml",
            "/run.json",
            "/pictures",
            "/pictures/",
            "/pictures/notes.txt",
            "/pictures/../config.yaml",
            "/pictures/..%2Fconfig.yaml",
            "/pictures/%2e%2e/run.json",
            "/pictures//worst-epoch-1.png",
            "/pictures/./worst-epoch-1.png",
            "/pictures/x/../worst-epoch-1.png",
            "/pictures/worst-epoch-1.png/",
            "/pictures/worst-epoch-1.png%00",
            "//etc/passwd",
            "/../../../../etc/passwd",
            "/..\\..\\config.yaml",
            "http://127.0.0.1/state.json",
            "/watch.py",
            "*",
        ],
    )
    def test_tricks_with_paths_lead_nowhere(self, path: str, run: Path) -> None:
        with serving(run) as server:
            code, headers, content = ask(server, path)
        assert (code, content) == (404, b"not found\n")
        assert "Content-Security-Policy" in headers

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"])
    def test_other_methods_are_refused(self, method: str, run: Path) -> None:
        with serving(run) as server:
            code, headers, content = ask(server, "/state.json", method)
        assert (code, headers["Allow"], content) == (405, "GET, HEAD", b"Method Not Allowed\n")

    def test_head_has_no_content(self, run: Path) -> None:
        request = b"HEAD /pictures/worst-epoch-1.png HTTP/1.0\r\nHost: localhost\r\n\r\n"
        with serving(run) as server, socket.create_connection(("127.0.0.1", server.port)) as line:
            line.sendall(request)
            answer = line.makefile("rb").read()
        size = (run / "pictures/worst-epoch-1.png").stat().st_size
        assert b" 200 OK" in answer and f"Content-Length: {size}\r\n".encode() in answer
        assert answer.endswith(b"\r\n\r\n")

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8001", "", "127.0.0.1.evil.com"]
    )
    def test_a_name_that_is_not_this_machines_is_refused(self, host: str, run: Path) -> None:
        with serving(run) as server:
            for path in ("/", "/state.json", "/pictures/worst-epoch-1.png"):
                assert ask(server, path, Host=host)[::2] == (403, b"unknown host\n")

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:80", "[::1]:8001"])
    def test_names_of_this_machine(self, host: str, run: Path) -> None:
        with serving(run) as server:
            assert ask(server, "/state.json", Host=host)[0] == 200

    @pytest.mark.parametrize(
        ("host", "code"),
        [
            ("192.0.2.7:8001", 200),
            ("[2001:db8::7]:8001", 200),
            ("localhost", 200),
            ("GPU-box:8001", 200),
            ("gpu-box.local", 200),
            ("gpu-box.evil.example", 403),
            ("evil.example", 403),
            ("192.0.2.7.evil.example", 403),
        ],
    )
    def test_bound_elsewhere_addresses_and_its_own_name_will_do(
        self, host: str, code: int, run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watch.socket, "gethostname", lambda: "gpu-box")
        with serving(run, "0.0.0.0") as server:
            assert not server.on_loopback
            assert ask(server, "/state.json", Host=host)[0] == code

    def test_the_name_given_to_host_will_do(self, run: Path) -> None:
        with serving(run, "0.0.0.0") as server:
            server.host = "GPU-box.example"
            assert ask(server, "/state.json", Host="gpu-box.example:8001")[0] == 200

    def test_no_answer_holds_a_path_of_the_machine(self, run: Path) -> None:
        with serving(run) as server:
            answers = [
                ask(server, p) for p in ("/", "/state.json", "/watch.js", "/x", "/pictures/")
            ]
        told = b"".join(repr(headers).encode() + content for _, headers, content in answers)
        for secret in (str(run.parent), "/home/someone", "a secret"):
            assert secret.encode() not in told
        assert b"1.png" in told

    def test_noise_is_answered_in_a_few_words(self, run: Path) -> None:
        with serving(run) as server:
            with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
                connection.sendall(b"\x16\x03\x01 noise\r\n\r\n")
                answer = connection.makefile("rb").read()
            assert answer == b"Bad Request\n"
            assert ask(server, "/state.json")[0] == 200

    def test_a_browser_that_has_gone_says_nothing(
        self, run: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with serving(run) as server:
            try:
                raise ConnectionResetError
            except ConnectionResetError:
                server.handle_error(None, None)
            ask(server, "/state.json")
        assert capfd.readouterr().err == ""

    def test_the_page_names_nothing_elsewhere(self) -> None:
        for name in ("watch.html", "watch.css", "watch.js", "watch.svg"):
            text = (ROOT / "src/pages" / name).read_text("utf-8")
            addresses = set(re.findall(r"https?://[^\s\"']+", text))
            assert addresses <= {"http://www.w3.org/2000/svg"}  # a name that nothing asks for
            assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:", text)


class TestCommand:
    def test_a_folder_that_is_no_run(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "photo.jpg").write_text("x")
        assert main([str(tmp_path), "--port=0"]) == 2
        error = capsys.readouterr().err
        assert "is no run folder: it has no config.yaml (found: photo.jpg)" in error

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "photo.jpg").write_text("x")
        with pytest.raises(UserError, match=r"photo\.jpg is a file\. Give a run folder"):
            check_folder(tmp_path / "photo.jpg")

    def test_folders_that_may_become_runs(self, tmp_path: Path) -> None:
        check_folder(tmp_path / "later")
        check_folder(tmp_path)
        # What a run writes before its config, since it settles its learning rate first.
        for name in ("config.yaml.tmp", "find_lr.csv", "find_lr.svg"):
            (tmp_path / name).write_text("half of it")
        check_folder(tmp_path)

    @pytest.mark.parametrize("port", [-1, 65536])
    def test_a_port_out_of_range(self, port: int, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=rf"--port is {port}; allowed is 0 to 65535"):
            open_server(tmp_path, "127.0.0.1", port)

    def test_a_port_in_use(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with serving(run) as server:
            assert main([str(run), f"--port={server.port}"]) == 2
        error = capsys.readouterr().err
        assert f"--port {server.port}" in error and "Give another --port (0 takes" in error

    def test_a_host_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"nothing can listen at --host 192\.0\.2\.1 --port"):
            open_server(tmp_path, "192.0.2.1", 0)  # reserved for documentation (RFC 5737)

    def test_a_host_beyond_this_machine_gets_a_warning(
        self, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(Server, "serve_forever", lambda self: None)
        assert main([str(run), "--host=0.0.0.0", "--port=0"]) == 0
        assert "WARNING: --host 0.0.0.0: whoever reaches" in capsys.readouterr().err
        assert main([str(run), "--port=0"]) == 0
        assert capsys.readouterr().err == ""

    def test_defaults(self) -> None:
        options = parser().parse_args(["RUN"])
        assert (options.host, options.port) == ("127.0.0.1", 8001)

    @pytest.mark.parametrize(
        ("number", "code", "word"),
        [(signal.SIGINT, 130, "stopped by Ctrl-C"), (signal.SIGTERM, 143, "stopped by SIGTERM")],
    )
    def test_a_signal_ends_it(self, number: int, code: int, word: str, run: Path) -> None:
        command = [sys.executable, "-m", "src.watch", str(run), "--port=0"]
        started = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert started.stdout is not None
            line = started.stdout.readline()
            assert re.fullmatch(
                rf"watching {run}: http://127\.0\.0\.1:\d+/ \(Ctrl-C ends it\)\n", line
            )
            started.send_signal(number)
            out, err = started.communicate(timeout=20)
        finally:
            started.kill()
        assert (started.returncode, out, err) == (code, "", f"{word}\n")

    def test_starts_without_torch(self) -> None:
        """A page beside a training takes none of its memory."""
        code = "import sys, src.watch; print(*sorted({'torch', 'lightning'} & set(sys.modules)))"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert done.stdout == "\n"

    def test_the_page_is_packed(self) -> None:
        import tomllib

        table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
        patterns = table["package-data"]["src"]
        packed = {path.name for pattern in patterns for path in (ROOT / "src").glob(pattern)}
        assert {name for name, _ in watch._FILES.values()} <= packed
