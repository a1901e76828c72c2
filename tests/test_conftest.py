"""The rules of tests/conftest.py, each seen to bite."""

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ROOT, NetworkUsedError

SKIPS = """
import pytest
from tests.helpers import require_module, require_program

def test_module(): require_module("no_such_package.part")
def test_program(): require_program("no-such-program")
def test_import(): pytest.importorskip("no_such_package")
@pytest.mark.skip(reason="some day")
def test_mark(): pass
def test_photographs(): pytest.skip("no photographs: set BEE_WASP_ROOT")
@pytest.mark.xfail(reason="known")
def test_known(): raise ValueError
def test_present():
    require_module("json")
    assert require_program("python")
"""


def run_pytest(folder: Path, no_skip: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    python_folder = str(Path(sys.executable).parent)
    done = subprocess.run(
        [*command, "-q", "--rootdir", str(folder), "-c", os.devnull, str(folder), *arguments],
        cwd=ROOT,
        env=os.environ
        | {"WAGGLE_NO_SKIP": no_skip, "PATH": f"{python_folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("no_skip", "expected"),
    [
        ("", "1 passed, 5 skipped, 1 xfailed"),
        ("1", "3 failed, 1 passed, 1 skipped, 1 xfailed, 1 error"),  # the mark fails in set-up
    ],
)
def test_only_excused_skips_stand_where_nothing_may_be_missing(tmp_path, no_skip, expected):
    (tmp_path / "test_skips.py").write_text(SKIPS)
    assert run_pytest(tmp_path, no_skip).startswith(expected)


def test_a_whole_file_that_is_skipped_fails_too(tmp_path):
    (tmp_path / "test_file.py").write_text("import pytest\npytest.importorskip('no_such_package')")
    assert run_pytest(tmp_path, "").startswith("1 skipped")
    assert run_pytest(tmp_path, "1").startswith("1 error")


def test_a_campaign_runs_only_when_it_is_named(tmp_path):
    (tmp_path / "test_long.py").write_text(
        "import pytest\n@pytest.mark.campaign\ndef test_long(): pass\ndef test_short(): pass"
    )
    assert run_pytest(tmp_path, "").startswith("1 passed, 1 deselected")
    assert run_pytest(tmp_path, "", "-m", "not slow").startswith("1 passed, 1 deselected")
    assert run_pytest(tmp_path, "", "-m", "campaign or not slow").startswith("2 passed")


def test_another_machine_cannot_be_reached():
    with pytest.raises(NetworkUsedError, match="example"):
        socket.getaddrinfo("example.org", 443)
    with socket.socket() as sock, pytest.raises(NetworkUsedError, match="192"):
        sock.connect(("192.0.2.1", 80))


def test_a_started_program_is_refused_at_once():
    program = "import urllib.request as r; r.urlopen('http://example.org/', timeout=5)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr


def test_a_server_on_this_machine_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert client.getpeername()[1] == port
    with pytest.raises(urllib.error.URLError, match="refused"):  # past the proxy, but no one there
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)


def test_no_account_and_no_cache_of_the_user():
    assert "WANDB_API_KEY" not in os.environ
    assert os.environ["WANDB_MODE"] == "offline"
    assert not Path(os.environ["XDG_CACHE_HOME"]).is_relative_to(Path.home() / ".cache")
