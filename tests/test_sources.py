"""The built-in insects, and archives fetched from a server on this machine."""

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.data import download as download_module
from src.data import sources, unpack
from src.data.insects import draw
from src.data.sources import Archive, SyntheticInsects, data_home, make_once
from src.errors import RunFailureError, UserError
from tests.helpers import ROOT


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0.01)
    return tmp_path / "cache" / "waggle" / "data"


# ---------------------------------------------------------------------------------------------
# The insects


def test_insects_lie_in_the_layout_of_a_data_root(cache: Path) -> None:
    folder = SyntheticInsects(train_per_class=3, test_per_class=2, picture_size=32).fetch()
    assert folder == cache / "insects-v1-3-2-32-0"
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    test = [f"test/{name}/000{n}.png" for name in ("bee", "wasp") for n in (1, 2)]
    train = [f"train/{name}/000{n}.png" for name in ("bee", "wasp") for n in (1, 2, 3)]
    assert files == test + train
    with Image.open(folder / files[0]) as picture:
        assert (picture.size, picture.mode) == ((32, 32), "RGB")


def test_a_second_fetch_finds_the_folder_and_draws_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = SyntheticInsects(train_per_class=1, test_per_class=1, picture_size=32)
    first = source.fetch()
    monkeypatch.setattr(sources, "write_insects", None)
    assert source.fetch() == first


def test_a_picture_does_not_depend_on_how_many_others_are_made() -> None:
    few = SyntheticInsects(train_per_class=2, test_per_class=1, picture_size=32).fetch()
    many = SyntheticInsects(train_per_class=4, test_per_class=3, picture_size=32).fetch()
    for path in few.rglob("*.png"):
        assert path.read_bytes() == (many / path.relative_to(few)).read_bytes()


def test_every_part_of_the_key_changes_the_picture() -> None:
    keys = [(0, "train", "bee", 1), (1, "train", "bee", 1), (0, "test", "bee", 1)]
    keys += [(0, "train", "wasp", 1), (0, "train", "bee", 2)]
    drawn = {key: draw(*key, 32)[0].tobytes() for key in keys}
    assert len(set(drawn.values())) == len(keys)
    assert drawn[keys[0]] == draw(*keys[0], 32)[0].tobytes()


@pytest.mark.parametrize("name", ["bee", "wasp"])
def test_the_box_holds_the_insect_and_is_not_larger(name: str) -> None:
    gaps = []
    for number in range(1, 25):
        with_insect, box = draw(0, "train", name, number, 96)
        without, _ = draw(0, "train", name, number, 96, insect=False)
        changed = np.abs(with_insect.astype(int) - without).max(axis=2)  # [S, S]
        y, x = np.nonzero(changed > 25)
        gap = np.array([x.min() - box.x0, y.min() - box.y0, box.x1 - 1 - x.max()])
        gap = np.append(gap, box.y1 - 1 - y.max())
        assert gap.min() >= -1  # the camera's blur reaches a pixel further
        gaps.append(gap)
    # A dark leg on a dark leaf changes little, so single boxes may look too large, not most.
    assert np.median(gaps) <= 1


def test_boxes_csv_has_a_row_for_each_picture() -> None:
    folder = SyntheticInsects(train_per_class=2, test_per_class=1, picture_size=32).fetch()
    head, *rows = (folder / "boxes.csv").read_text(encoding="utf-8").splitlines()
    assert head == "path,x0,y0,x1,y1"
    assert len(rows) == 6
    path, *box = rows[0].split(",")
    assert path == "train/bee/0001.png"
    assert tuple(map(int, box)) == draw(0, "train", "bee", 1, 32)[1]


Array = np.ndarray[Any, np.dtype[np.float32]]
Sample = tuple[Array, Array]
Features = Callable[[Array], Array]


def sample(split: str, count: int, size: int) -> Sample:
    """Draw pictures of both classes by turns: [N, S, S, 3] from 0 to 1, and targets 1 or -1."""
    pictures, targets = [], []
    for number in range(1, count + 1):
        for name, target in (("bee", -1.0), ("wasp", 1.0)):
            pictures.append(draw(3, split, name, number, size)[0])
            targets.append(target)
    return np.stack(pictures) / np.float32(255), np.array(targets, np.float32)


def linear_accuracy(train: Sample, test: Sample, features: Features, penalty: float) -> float:
    """Fit a ridge regression on one sample and score it on the other."""
    x, z = features(train[0]), features(test[0])
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, z = (x - mean) / spread, (z - mean) / spread
    # The dual form: as many unknowns as pictures, however many pixels.
    weights = x.T @ np.linalg.solve(x @ x.T + penalty * x.shape[1] * np.eye(len(x)), train[1])
    return float(((z @ weights > 0) == (test[1] > 0)).mean())


def pixels(x: Array) -> Array:
    return x.reshape(len(x), -1)


def coarse(x: Array) -> Array:  # 16 x 16
    return x.reshape(len(x), 16, 3, 16, 3, 3).mean(axis=(2, 4)).reshape(len(x), -1)


def mean_colour(x: Array) -> Array:
    return x.mean(axis=(1, 2))


def middle_colour(x: Array) -> Array:
    return x[:, 16:32, 16:32].mean(axis=(1, 2))


def test_a_linear_model_on_pixels_or_colours_stays_under_75_percent() -> None:
    train, test = sample("train", 240, 48), sample("test", 160, 48)
    found = {
        (features.__name__, penalty): linear_accuracy(train, test, features, penalty)
        for features in (pixels, coarse, mean_colour, middle_colour)
        for penalty in (0.01, 1.0)
    }
    assert max(found.values()) < 0.75, found
    assert min(found.values()) > 0.35, found  # far below chance would be a broken probe


def test_the_linear_probe_would_see_a_class_that_colour_gives_away() -> None:
    train, test = sample("train", 60, 32), sample("test", 30, 32)
    for pictures, targets in (train, test):
        pictures += np.float32(0.2) * targets[:, None, None, None]
    assert linear_accuracy(train, test, pixels, 1.0) > 0.85


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_per_class": 0}, "data.source.train_per_class is 0; allowed is 1 or more"),
        ({"test_per_class": -1}, "data.source.test_per_class is -1; allowed is 1 or more"),
        ({"picture_size": 8}, "data.source.picture_size is 8; allowed is 16 to 1024"),
        ({"picture_size": 4096}, "data.source.picture_size is 4096; allowed is 16 to 1024"),
        ({"seed": -1}, "data.source.seed is -1; allowed is 0 or more"),
    ],
)
def test_insects_refuse_values_out_of_range(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SyntheticInsects(**arguments)


# ---------------------------------------------------------------------------------------------
# One folder, made once


def test_a_relative_cache_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert data_home() == Path.home() / ".cache" / "waggle" / "data"


def test_a_failed_attempt_leaves_nothing_that_looks_whole(cache: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "begun").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once("thing", half)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []


def test_what_a_killed_process_left_is_swept(cache: Path) -> None:
    script = (
        "import os, signal\n"
        "from src.data.sources import make_once\n"
        "def die(folder):\n"
        "    (folder / 'half').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "make_once('thing', die)\n"
    )
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert process.returncode == -9
    left = [path for path in cache.iterdir() if path.is_dir()]
    assert len(left) == 1 and (left[0] / "data" / "half").exists()
    other = cache / ".thing2.abc.tmp"
    other.mkdir()

    folder = make_once("thing", lambda folder: (folder / "whole").touch())

    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert not left[0].exists()
    assert other.exists()  # another folder's, maybe at work


def test_a_cache_that_cannot_be_written_is_a_failure_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(RunFailureError, match=r"can't be written to .*export XDG_CACHE_HOME=DIR"):
        make_once("thing", lambda folder: None)


# ---------------------------------------------------------------------------------------------
# Archives from a server


class Server(ThreadingHTTPServer):
    """Serves one file; counts and remembers what it was asked for."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.tag = '"one"'
        self.ranges = True  # understands Range
        self.cuts: list[int] = []  # after how many bytes of the file the next answers break off
        self.codes: list[int] = []  # what the next answers say instead
        self.was_asked = threading.Event()
        self.gate = threading.Event()  # answers wait until it is open
        self.gate.set()
        self.asked: list[dict[str, str]] = []  # headers of every request
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(dict(self.headers))
        server.was_asked.set()
        server.gate.wait(timeout=60)
        if server.codes:
            self.send_error(server.codes.pop(0))
            return
        start = self._start()
        if start and start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._head(start)
        stop = server.cuts.pop(0) if server.cuts else len(server.content)
        body = server.content[start:stop]
        server.sent += len(body)
        self.wfile.write(body)

    def _start(self) -> int:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", self.server.tag) == self.server.tag
        return int(wanted[1]) if wanted and same and self.server.ranges else 0

    def _head(self, start: int) -> None:
        size = len(self.server.content)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.send_header("ETag", self.server.tag)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(content: bytes) -> Iterator[Server]:
    server = Server(content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


PICTURES = {
    f"data/{split}/{name}/{n}.jpg": bytes(f"{split}{name}{n}", "ascii") * 500
    for split in ("train", "test")
    for name in ("bee", "wasp")
    for n in range(4)
}
CLUTTER = {"__MACOSX/data/._1.jpg": b"x", "data/.DS_Store": b"x", "data/train/bee/Thumbs.db": b"x"}
GOOD = zipped(PICTURES | CLUTTER)
COUNTS = {"train": 8, "test/bee": 4}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(GOOD) as running:
        yield running


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {f"data/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}


def test_an_archive_is_fetched_checked_and_unpacked_once(
    server: Server, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256(GOOD).hexdigest().upper()
    source = Archive(server.url, sha256=digest, subfolder="data", counts=COUNTS, name="mine")
    folder = source.fetch()
    assert tree(folder) == PICTURES  # without the clutter
    assert folder.parent.parent == cache and folder.parent.name.startswith("mine-")
    assert source.fetch() == folder
    assert len(server.asked) == 1
    assert sorted(path.suffix for path in cache.iterdir()) in ([""], ["", ".lock"])
    message = rf"downloading http://127.0.0.1:\d+/data.zip, 0\.\d MB, to {re.escape(str(cache))}"
    assert re.search(message, capfd.readouterr().err)


def test_a_broken_download_goes_on_where_it_stopped(server: Server) -> None:
    cut = 2 * download_module.PIECE_BYTES
    server.cuts = [cut]
    folder = Archive(server.url, subfolder="data").fetch()
    assert tree(folder) == PICTURES
    first, second = server.asked
    assert "Range" not in first
    assert (second["Range"], second["If-Range"]) == (f"bytes={cut}-", '"one"')
    assert server.sent == len(GOOD)  # not a byte twice


def test_a_break_inside_a_piece_costs_that_piece_alone(server: Server) -> None:
    server.cuts = [20_000, 50_001, 60_000]
    folder = Archive(server.url, subfolder="data").fetch()
    assert tree(folder) == PICTURES
    assert len(server.asked) == 4
    assert server.sent < len(GOOD) + 3 * download_module.PIECE_BYTES


def test_a_later_process_takes_up_what_an_earlier_one_left(server: Server, cache: Path) -> None:
    third = len(GOOD) // 3
    source = Archive(server.url, subfolder="data")
    make_part(source, cache, GOOD[:third], size=len(GOOD))
    assert tree(source.fetch()) == PICTURES
    assert [asked["Range"] for asked in server.asked] == [f"bytes={third}-"]
    assert server.sent == len(GOOD) - third


def make_part(source: Archive, cache: Path, content: bytes, size: int, tag: str = '"one"') -> None:
    """Put in place what a killed download leaves."""
    cache.mkdir(parents=True, exist_ok=True)
    (cache / f"{source.name}.archive.part").write_bytes(content)
    note = json.dumps({"validator": tag, "size": size})
    (cache / f"{source.name}.archive.part.json").write_text(note, encoding="utf-8")


def test_a_server_without_range_sends_it_all_again(server: Server) -> None:
    server.ranges = False
    server.cuts = [len(GOOD) // 2]
    assert tree(Archive(server.url, subfolder="data").fetch()) == PICTURES
    assert server.sent == len(GOOD) // 2 + len(GOOD)


def test_a_file_that_changed_since_is_fetched_from_its_start(server: Server, cache: Path) -> None:
    source = Archive(server.url, subfolder="data")
    make_part(source, cache, b"old" * 50, size=len(GOOD), tag='"zero"')
    assert tree(source.fetch()) == PICTURES
    assert server.asked[0]["If-Range"] == '"zero"'
    assert server.sent == len(GOOD)


def test_a_file_of_another_size_is_fetched_from_its_start(server: Server, cache: Path) -> None:
    source = Archive(server.url, subfolder="data")
    make_part(source, cache, b"old" * 50, size=len(GOOD) + 1, tag='W/"weak"')
    assert tree(source.fetch()) == PICTURES
    assert "If-Range" not in server.asked[0]  # a weak tag promises no equal bytes
    assert "Range" not in server.asked[1]


@pytest.mark.parametrize("extra", [0, 7])
def test_a_part_as_long_as_the_file_or_longer(server: Server, cache: Path, extra: int) -> None:
    source = Archive(server.url, subfolder="data")
    make_part(source, cache, GOOD + b"x" * extra, size=len(GOOD))
    assert tree(source.fetch()) == PICTURES
    assert server.sent == (len(GOOD) if extra else 0)


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.codes = [503, 429]
    assert tree(Archive(server.url, subfolder="data").fetch()) == PICTURES
    assert len(server.asked) == 3


def test_a_server_that_stays_broken_is_a_failure(server: Server, cache: Path) -> None:
    server.codes = [500] * 4
    with pytest.raises(RunFailureError, match=r"failed 4 times: the server answered 500"):
        Archive(server.url).fetch()
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_a_file_that_does_not_exist_is_not_asked_for_twice(server: Server) -> None:
    server.codes = [404]
    with pytest.raises(UserError, match=r"data.zip: the server answered 404 .*data.source.url"):
        Archive(server.url).fetch()
    assert len(server.asked) == 1


def test_without_a_network_the_message_says_how_to_go_on_by_hand() -> None:
    with serving(b"") as closed:
        port = closed.server_port
    url = f"http://user:secret@127.0.0.1:{port}/data.zip?token=secret"
    with pytest.raises(RunFailureError, match=r"with a browser.*--data.root DIR") as raised:
        Archive(url).fetch()
    assert f"http://127.0.0.1:{port}/data.zip failed" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_wrong_checksum_names_both_and_deletes_the_file(server: Server, cache: Path) -> None:
    wrong, found = "0" * 64, hashlib.sha256(GOOD).hexdigest()
    with pytest.raises(UserError, match=f"found sha256 {found}, expected {wrong}"):
        Archive(server.url, sha256=wrong).fetch()
    assert [path.suffix for path in cache.iterdir() if path.suffix != ".lock"] == []


def test_wrong_counts_are_said_and_the_download_is_kept(server: Server, cache: Path) -> None:
    message = "counts says 9 files under 'train', the archive .* gave 8"
    with pytest.raises(UserError, match=message):
        Archive(server.url, subfolder="data", counts={"train": 9}).fetch()
    assert [path for path in cache.iterdir() if path.is_dir()] == []
    Archive(server.url, subfolder="data", counts={"train": 8}).fetch()
    assert len(server.asked) == 1


def test_a_file_deleted_from_the_cache_is_noticed(server: Server) -> None:
    source = Archive(server.url, subfolder="data", counts=COUNTS)
    (source.fetch() / "train/bee/0.jpg").unlink()
    with pytest.raises(UserError, match=r"gave 7: delete .* to fetch it again"):
        source.fetch()


def test_a_subfolder_that_is_not_there_names_those_that_are(server: Server) -> None:
    with pytest.raises(UserError, match=r"no folder 'dta'; found: data\..*subfolder"):
        Archive(server.url, subfolder="dta").fetch()


def test_two_processes_fetch_once(server: Server) -> None:
    server.gate.clear()
    script = f"from src.data.sources import Archive\nprint(Archive({server.url!r}).fetch())\n"

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)

    with start() as first:
        assert server.was_asked.wait(timeout=60)  # so the first holds the lock
        with start() as second:
            assert second.stderr is not None
            assert "waiting for another process that is making" in second.stderr.readline()
            server.gate.set()
            folders = {process.communicate(timeout=60)[0].strip() for process in (first, second)}
    assert len(folders) == 1 and Path(folders.pop()).is_dir()
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "ftp://host/data.zip"}, "url is 'ftp://host/data.zip'; allowed are http://"),
        ({"url": "file:///data.zip"}, "url is 'file:///data.zip'"),
        ({"url": "data.zip"}, "url is 'data.zip'"),
        ({"sha256": "abc"}, "sha256 is 'abc'; allowed are 64 hexadecimal digits"),
        ({"subfolder": "../data"}, "subfolder names '../data'; allowed are folders inside"),
        ({"counts": {"/train": 1}}, "counts names '/train'"),
        ({"name": "../mine"}, "name is '../mine'; allowed are letters"),
    ],
)
def test_archives_refuse_arguments_that_cannot_be_right(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Archive(**({"url": "https://host/data.zip"} | arguments))  # type: ignore[arg-type]


def test_another_address_or_checksum_is_another_folder() -> None:
    names = {
        Archive("https://host/data.zip").name,
        Archive("https://other/data.zip").name,
        Archive("https://host/data.zip", sha256="0" * 64).name,
    }
    assert len(names) == 3
    assert all(name.startswith("data-") for name in names)


# ---------------------------------------------------------------------------------------------
# Hostile and damaged archives


def unpacked(tmp_path: Path, content: bytes) -> Path:
    archive, folder = tmp_path / "some.archive", tmp_path / "inside" / "folder"
    archive.write_bytes(content)
    folder.mkdir(parents=True)
    unpack.unpack(archive, folder)
    return folder


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "C:/evil", "c:evil", "a\\..\\evil", "\\evil"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_that_lead_out_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    members = {"a.jpg": b"x", name: b"evil"}
    tar = tarred(*((name, tarfile.REGTYPE, content) for name, content in members.items()))
    with pytest.raises(UserError, match=r"refused because of its member .*leads out"):
        unpacked(tmp_path, zipped(members) if kind == "zip" else tar)
    assert not list(tmp_path.rglob("*evil"))


def test_a_name_that_zipfile_would_cut_short_is_refused(tmp_path: Path) -> None:
    content = zipped({"a.jpgXb": b"x"}).replace(b"a.jpgXb", b"a.jpg\0b")
    with pytest.raises(UserError, match="refused because of its member"):
        unpacked(tmp_path, content)


@pytest.mark.parametrize("kind", [0o120777, 0o010644, 0o020644])  # link, pipe, device
def test_zip_members_that_are_no_plain_files_are_refused(tmp_path: Path, kind: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, kind << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="'link': it is a link or a device"):
        unpacked(tmp_path, buffer.getvalue())


def tarred(*members: tuple[str, bytes, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "/etc/passwd"
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_tar_members_that_are_no_plain_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(UserError, match="'link': it is a link or a device"):
        unpacked(tmp_path, tarred(("link", kind, b"")))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_archives_are_unpacked_too(tmp_path: Path, mode: str) -> None:
    members = [("./data", tarfile.DIRTYPE, b""), ("./data/a.jpg", tarfile.REGTYPE, b"abc")]
    folder = unpacked(tmp_path, tarred(*members, mode=mode))
    assert tree(folder) == {"data/data/a.jpg": b"abc"}


@pytest.mark.parametrize(
    "members",
    [
        [("a.jpg", b"1"), ("a.jpg", b"2")],
        [("a.jpg", b"1"), ("./a.jpg", b"2")],
        [("a", b"1"), ("a/b", b"2")],
        [("a/b", b"1"), ("a", b"2")],
    ],
)
def test_two_members_in_one_place_are_refused(
    tmp_path: Path, members: list[tuple[str, bytes]]
) -> None:
    content = tarred(*((name, tarfile.REGTYPE, data) for name, data in members))
    with pytest.raises(UserError, match="another member in the same place"):
        unpacked(tmp_path, content)


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.jpg", bytes(40_000_000))
    with pytest.raises(UserError, match=r"unpacks to 0\.1 GB or more, .* times its size; allowed"):
        unpacked(tmp_path, buffer.getvalue())


def test_an_archive_over_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"allowed are 0\.0 GB"):
        unpacked(tmp_path, zipped({"a.jpg": bytes(1001)}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><p>Sign in", "neither zip nor tar, it begins with b'<!DOCTYPE html"),
        (b"", "neither zip nor tar"),
        (GOOD[: len(GOOD) // 2], "damaged"),
        (GOOD.replace(b"trainbee0trainbee0", b"trainbee0Trainbee0", 1), "Bad CRC-32"),
        (tarred(("a.jpg", tarfile.REGTYPE, bytes(range(256)) * 40))[:-40], "damaged"),
    ],
)
def test_a_damaged_archive_is_said_and_deleted(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        unpacked(tmp_path, content)
    assert not (tmp_path / "some.archive").exists()
