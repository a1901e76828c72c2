"""Decoded pixels kept on the disk: the same ones, decoded once, whatever happens to the files."""

import errno
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from src import cache as command
from src import preprocess
from src.cache import main
from src.data import cache as cache_module
from src.data import home, scans
from src.data import writer as writer_module
from src.data.cache import fill as fill_parts
from src.data.cache import open_store
from src.data.datamodule import DataModule
from src.data.index import Index
from src.data.room import limit_bytes
from src.data.scans import scan
from src.data.segments import END_BYTES, ROW, Segment, Stored
from src.data.store import PixelStore
from src.data.writer import Writer
from src.errors import UserError
from tests.cli.conftest import make_pictures
from tests.helpers import ROOT

SIDE = 16
NUM = 12  # pictures
ONE = 3 * SIDE * SIDE  # bytes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "pictures", {"": NUM // 2})


@pytest.fixture
def store(tmp_path: Path) -> PixelStore:
    return PixelStore(SIDE, "stretch", tmp_path / "place")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded."""
    names: list[str] = []
    real = preprocess.decode

    def counting(path: Any, *more: Any) -> Image.Image:
        names.append(Path(path).name)
        return real(path, *more)

    monkeypatch.setattr(scans, "decode", counting)
    monkeypatch.setattr(preprocess, "decode", counting)
    return names


def index_of(root: Path) -> Index:
    paths = tuple(sorted(str(path.relative_to(root)) for path in root.rglob("*.png")))
    hashes = tuple(found.hash for found in scan(root, paths))
    labels, splits = np.zeros(len(paths), np.int64), np.full(len(paths), "train")
    return Index(root, ("ant", "bug"), paths, labels, splits, hashes)


def fill(store: PixelStore, index: Index, wanted: Any = None) -> Stored:
    mask = np.ones(len(index), np.bool_) if wanted is None else wanted
    (stored,) = fill_parts([(store, mask)], index)
    return stored


def segments(store: PixelStore) -> list[Path]:
    return sorted(store.folder.glob("*.pixels"))


def assert_right(store: PixelStore, index: Index, rule: preprocess.Rule = "stretch") -> None:
    stored, missing = store.find(index.hashes)
    assert missing == []
    for number in range(len(index)):
        expected = preprocess.load_pixels(index.path(number), SIDE, rule)
        assert np.array_equal(stored.pixels(number), expected)  # type: ignore[arg-type]


class TestPixels:
    @pytest.mark.parametrize("rule", ["stretch", "crop"])
    def test_are_those_of_decoding(self, rule: Any, root: Path, tmp_path: Path) -> None:
        Image.new("RGB", (50, 20), "red").save(root / "ant" / "wide.png")
        store, index = PixelStore(SIDE, rule, tmp_path / "place"), index_of(root)
        fill(store, index)
        assert_right(store, index, rule)

    def test_are_a_view_that_nobody_can_write_to(self, store: PixelStore, root: Path) -> None:
        pixels = fill(store, index_of(root)).pixels(0)
        assert pixels is not None and pixels.base is not None
        with pytest.raises(ValueError, match="read-only"):
            pixels[0, 0, 0] = 1

    def test_pickle_without_what_they_show(self, store: PixelStore, root: Path) -> None:
        stored = fill(store, index_of(root))
        closed = len(pickle.dumps(stored))
        first = stored.pixels(0)
        assert len(pickle.dumps(stored)) == closed < NUM * ONE
        copy = pickle.loads(pickle.dumps(stored))  # noqa: S301 - made in the line itself
        assert np.array_equal(copy.pixels(0), first)

    def test_in_another_order(self, store: PixelStore, root: Path) -> None:
        stored = fill(store, index_of(root))
        taken = stored.take(np.array([5, 2]))
        assert len(taken) == 2
        assert np.array_equal(taken.pixels(0), stored.pixels(5))  # type: ignore[arg-type]
        assert np.array_equal(taken.pixels(1), stored.pixels(2))  # type: ignore[arg-type]


def test_ways_to_mix_pixels_are_kept_apart(root: Path, tmp_path: Path) -> None:
    index = index_of(root)
    for way in ("bilinear", "nearest"):
        store = PixelStore(9, "stretch", tmp_path / "place", way)
        stored = fill(store, index)
        for number in range(NUM):
            expected = preprocess.load_pixels(index.path(number), 9, "stretch", way)
            assert np.array_equal(stored.pixels(number), expected)
    assert len(list((tmp_path / "place").iterdir())) == 2


class TestDecoding:
    def test_happens_once(self, store: PixelStore, root: Path, decoded: list[str]) -> None:
        """While the files are looked at for the first time; later starts decode nothing."""
        paths = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
        with closing(Writer(store, limit_bytes())) as writer:
            scan(root, paths, keep=writer.keep)
        fill(store, index_of(root))
        assert len(decoded) == NUM
        fill(store, index_of(root))
        assert len(decoded) == NUM
        assert_right(store, index_of(root))

    def test_of_a_changed_picture_alone(
        self, store: PixelStore, root: Path, decoded: list[str]
    ) -> None:
        fill(store, index_of(root))
        Image.new("RGB", (9, 9), "blue").save(root / "ant" / "0.png")
        (root / "ant" / "1.png").unlink()
        (root / "bug" / "2.png").rename(root / "bug" / "moved.png")
        index = index_of(root)
        decoded.clear()
        fill(store, index)
        assert decoded == ["0.png"]
        assert len(segments(store)) == 2
        assert_right(store, index)

    def test_finds_pictures_in_any_order_as_often_as_asked(
        self, store: PixelStore, root: Path
    ) -> None:
        """Over two segments; one that is not there is told by its position."""
        index = index_of(root)
        halves = np.arange(NUM) < NUM // 2
        fill(store, index, halves)
        fill(store, index, ~halves)
        assert len(segments(store)) == 2
        asked = [3, 11, 3, 0, 11]
        stored, missing = store.find([*(index.hashes[i] for i in asked), "f" * 32])
        assert missing == [5]
        for place, number in enumerate(asked):
            expected = preprocess.load_pixels(index.path(number), SIDE, "stretch")
            assert np.array_equal(stored.pixels(place), expected)  # type: ignore[arg-type]
        assert store.find([])[1] == []

    def test_of_equal_pictures_keeps_one(self, store: PixelStore, root: Path) -> None:
        shutil.copy(root / "ant" / "0.png", root / "ant" / "again.png")
        fill(store, index_of(root))
        assert len(Segment(segments(store)[0]).rows) == NUM
        assert_right(store, index_of(root))

    def test_that_is_interrupted_keeps_what_it_has(
        self, store: PixelStore, root: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index = index_of(root)
        decoded.clear()
        real = scans.scan_file
        monkeypatch.setattr(scans, "usable_cores", lambda: 1)

        def interrupted(path: Path, keep: Any) -> Any:
            if path.name == "3.png":
                raise KeyboardInterrupt
            return real(path, keep)

        with monkeypatch.context() as patch:
            patch.setattr(scans, "scan_file", interrupted)
            with pytest.raises(KeyboardInterrupt):
                fill(store, index)
        before = set(decoded)
        assert before
        assert not list(store.folder.glob("*.tmp"))
        decoded.clear()
        fill(store, index)
        assert len(decoded) < NUM
        assert_right(store, index)


class TestTwoAtOnce:
    def test_the_second_waits_and_decodes_nothing(
        self, store: PixelStore, root: Path, decoded: list[str]
    ) -> None:
        index = index_of(root)
        decoded.clear()
        waits = threading.Event()
        first = Writer(store, limit_bytes())
        first.begin()
        result: list[Stored] = []
        with pytest.MonkeyPatch.context() as patch:  # it says so where it waits
            patch.setattr(home, "print", lambda *_, **__: waits.set(), raising=False)
            second = threading.Thread(target=lambda: result.append(fill(store, index)))
            second.start()
            assert waits.wait(60)
            for number in range(NUM):
                first.keep(index.hashes[number], preprocess.open_rgb(index.path(number)))
            first.close()
            second.join(60)
        assert sorted(decoded) == sorted(Path(path).name for path in index.paths)  # by the first
        assert (result[0].files >= 0).all()

    def test_what_the_first_has_added_counts(
        self, store: PixelStore, root: Path, gib: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The room is that which is left when the lock has been had, not when it was asked for."""
        index = index_of(root)
        gib(5 * (ONE + ROW.itemsize) + END_BYTES)
        real = Writer.begin

        def late(self: Writer, wait: bool = True) -> bool:
            monkeypatch.setattr(Writer, "begin", real)
            fill(store, index)  # by another process
            return real(self, wait)

        monkeypatch.setattr(Writer, "begin", late)
        stored = fill(store, index)
        assert (len(segments(store)), int((stored.files >= 0).sum())) == (1, 5)

    def test_a_look_at_the_files_does_not_wait(self, store: PixelStore) -> None:
        """It is made in threads, which Ctrl-C would have to wait for."""
        store.folder.mkdir(parents=True)
        with FileLock(store.folder / "lock"), closing(Writer(store, 10**6)) as writer:
            writer.keep("0" * 32, Image.new("RGB", (9, 9)))
        assert not segments(store)


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: content[:-1],
            lambda content: content[: len(content) // 2],
            lambda content: b"",
            lambda content: content[:-60] + bytes([content[-60] ^ 1]) + content[-59:],
            lambda content: bytes(len(content)),
        ],
        ids=["cut", "half", "empty", "flipped in the table", "zeros"],
    )
    def test_is_told_and_made_good(
        self, damage: Any, store: PixelStore, root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        index = index_of(root)
        fill(store, index)
        (path,) = segments(store)
        path.write_bytes(damage(path.read_bytes()))
        fill(store, index)
        err = capsys.readouterr().err
        assert re.search(r"WARNING: .*\.pixels (is|has) .*; its pictures are decoded again", err)
        assert_right(store, index)

    @pytest.mark.parametrize("later", [False, True])
    def test_of_pixels_is_found_when_they_are_read(
        self, later: bool, store: PixelStore, root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """One flipped bit, before the first read of the picture; the table is sound."""
        index = index_of(root)
        stored = fill(store, index)
        assert stored.pixels(0) is not None
        (path,) = segments(store)
        place = int(stored.rows["offset"][1]) + 5
        with path.open("r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1]))
        stored = stored if later else fill(store, index)
        assert stored.pixels(1) is None
        assert stored.pixels(0) is None and stored.pixels(2) is None  # decoded, all of them
        assert capsys.readouterr().err.count(".pixels is damaged; its pictures are decoded") == 1
        assert not path.exists()
        fill(store, index)
        assert_right(store, index)

    def test_a_segment_that_goes_while_it_is_used(self, store: PixelStore, root: Path) -> None:
        stored = fill(store, index_of(root))
        segments(store)[0].unlink()
        assert stored.pixels(0) is None  # decoded from the file, then

    @pytest.mark.parametrize("size", [0, ONE // 2])
    def test_a_segment_that_is_cut_before_it_is_read(
        self, size: int, store: PixelStore, root: Path
    ) -> None:
        stored = fill(store, index_of(root))
        os.truncate(segments(store)[0], size)
        assert stored.pixels(0) is None

    def test_what_a_killed_writer_left_in_another_store_goes_too(
        self, store: PixelStore, root: Path
    ) -> None:
        """Its decoder may have been replaced, and no writer will come there again."""
        old = store.place / "stretch-9-pillow-1.0"
        alive = store.place / "crop-9-pillow-1.0"
        for folder in (old, alive):
            folder.mkdir(parents=True)
            (folder / "new.pixels.tmp").write_bytes(b"x")
        with FileLock(alive / "lock"):
            fill(store, index_of(root))
        assert not (old / "new.pixels.tmp").exists()
        assert (alive / "new.pixels.tmp").exists()

    @pytest.mark.skipif(sys.platform == "win32", reason="not on this system: SIGKILL")
    def test_a_killed_writer_leaves_no_lock_and_no_rest(
        self, store: PixelStore, root: Path
    ) -> None:
        script = (
            "import os, signal, sys\nfrom pathlib import Path\nfrom PIL import Image\n"
            "from src.data.store import PixelStore\nfrom src.data.writer import Writer\n"
            f"writer = Writer(PixelStore({SIDE}, 'stretch', Path(sys.argv[1])), 10**9)\n"
            "writer.keep('0' * 32, Image.new('RGB', (5, 5)))\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run([sys.executable, "-c", script, store.place], cwd=ROOT, check=False)
        assert done.returncode == -signal.SIGKILL
        assert list(store.folder.glob("*.tmp"))
        index = index_of(root)
        fill(store, index)
        assert not list(store.folder.glob("*.tmp"))
        assert_right(store, index)


@pytest.mark.parametrize("fails", [False, True])
def test_the_lock_is_let_go(
    fails: bool, store: PixelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread than the one that took it, and where the file can't be made."""
    writer = Writer(store, 10**6)
    picture = Image.new("RGB", (9, 9))
    if fails:
        store.folder.mkdir(parents=True)
        (store.folder / "new.pixels.tmp").mkdir()
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    done, go = threading.Event(), threading.Event()

    def work() -> None:
        writer.keep("0" * 32, picture)
        done.set()
        go.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    done.wait(60)
    writer.close()
    FileLock(store.folder / "lock").acquire(timeout=0)
    go.set()
    thread.join()


@pytest.fixture
def gib(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Set the limit, in bytes."""
    yield lambda number: monkeypatch.setenv("WAGGLE_CACHE_GIB", str(number / 2**30))


class TestRoom:
    def test_is_kept_for_what_was_used_last(
        self, store: PixelStore, root: Path, tmp_path: Path, gib: Any
    ) -> None:
        other = PixelStore(SIDE, "crop", store.place)
        index = index_of(root)
        fill(other, index)
        fill(store, index)
        os.utime(segments(other)[0], (1, 1))
        gib(int(1.5 * segments(store)[0].stat().st_size))
        fill(store, index)
        assert (len(segments(other)), len(segments(store))) == (0, 1)

    def test_is_not_made_among_the_files_of_others(
        self, store: PixelStore, root: Path, gib: Any
    ) -> None:
        fill(store, index_of(root))
        foreign = store.place / "mine" / "photo.pixels"
        foreign.parent.mkdir()
        foreign.write_bytes(b"x")
        gib(0)
        fill(store, index_of(root))
        main(["--place", str(store.place), "--clear"])
        assert foreign.exists()
        assert not segments(store)

    def test_is_shared_by_the_sizes_of_one_run(
        self, store: PixelStore, root: Path, gib: Any, decoded: list[str],
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        """What was decoded for the training is not removed for the validation, nor anew."""
        index = index_of(root)
        other = PixelStore(SIDE, "crop", store.place)
        half = np.arange(NUM) < NUM // 2
        gib(NUM // 2 * (ONE + ROW.itemsize) + END_BYTES + ONE // 2)  # room for one half
        for turn in range(2):
            decoded.clear()
            one, two = fill_parts([(store, half), (other, ~half)], index)
            assert (one.files >= 0).tolist() == half.tolist()
            assert (two.files < 0).all()
            assert "the cache holds 0 of 6 decoded pictures" in capsys.readouterr().err
            assert len(decoded) == (NUM // 2 if turn == 0 else 0)

    def test_is_made_of_others_while_this_one_grows(
        self, store: PixelStore, root: Path, gib: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What this run is about to use is older than what another one has used."""
        monkeypatch.setattr(writer_module, "SEGMENT_BYTES", 2 * ONE)
        index = index_of(root)
        own = np.arange(NUM) < 4
        fill(store, index, own)
        for path in segments(store):
            os.utime(path, (1, 1))
        kept = segments(store)
        other = PixelStore(SIDE, "crop", store.place)
        fill(other, index, own)
        for path in segments(other):  # the clock of files may stand still for some milliseconds
            os.utime(path, (2, 2))
        gib(sum(path.stat().st_size for path in [*kept, *segments(other)]))
        with closing(Writer(store, limit_bytes())) as writer:
            for number in range(4):
                writer.keep(f"{number:032x}", Image.new("RGB", (SIDE, SIDE)))
        assert set(kept) <= set(segments(store))
        assert not segments(other)

    def test_that_cannot_be_made_spoils_nothing(
        self, store: PixelStore, root: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        def stale(place: Path) -> None:
            raise OSError(errno.ESTALE, "stale file handle")

        monkeypatch.setattr(writer_module, "SEGMENT_BYTES", 2 * ONE)
        monkeypatch.setattr(writer_module, "make_room", stale)
        index = index_of(root)
        fill(store, index)
        assert_right(store, index)
        assert "can't be kept" not in capsys.readouterr().err

    def test_that_the_second_size_took_from_the_first_is_seen(
        self, store: PixelStore, root: Path, gib: Any, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        index = index_of(root)
        other = PixelStore(SIDE, "crop", store.place)
        half = np.arange(NUM) < NUM // 2
        fill(store, index, half)
        complete = cache_module._complete

        def taking(filled: PixelStore, *words: Any) -> Stored:
            found = complete(filled, *words)
            if filled is other:
                for path in segments(store):
                    path.unlink()
            return found

        monkeypatch.setattr(cache_module, "_complete", taking)
        one, two = fill_parts([(store, half), (other, ~half)], index)
        assert (one.files < 0).all()
        assert (two.files >= 0).tolist() == (~half).tolist()
        assert "the cache holds 0 of 6 decoded pictures" in capsys.readouterr().err

    def test_that_has_shrunk_is_told(
        self, store: PixelStore, root: Path, gib: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        index = index_of(root)
        fill(store, index)
        gib(ONE)
        stored = fill(store, index)
        assert (stored.files < 0).all()
        assert "the cache holds 0 of 12 decoded pictures" in capsys.readouterr().err

    @pytest.mark.parametrize("slack", [0, ONE // 2])
    def test_for_a_part_is_used(
        self, slack: int, store: PixelStore, root: Path, gib: Any, decoded: list[str],
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        gib(5 * (ONE + ROW.itemsize) + END_BYTES + slack)
        index = index_of(root)
        stored = fill(store, index)
        assert sum(stored.pixels(number) is not None for number in range(NUM)) == 5
        assert "the cache holds 5 of 12 decoded pictures (WAGGLE_CACHE_GIB is" in (
            capsys.readouterr().err
        )
        decoded.clear()
        again = fill(store, index)  # the same five, and no second segment
        assert decoded == []
        assert (len(segments(store)), again.files.tolist()) == (1, stored.files.tolist())

    def test_none_at_all(self, store: PixelStore, root: Path, gib: Any) -> None:
        gib(0)
        assert fill(store, index_of(root)).pixels(0) is None
        assert not segments(store)

    @pytest.mark.parametrize("value", ["much", "-1", "inf", "nan", "1e300"])
    def test_of_nonsense_is_refused(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WAGGLE_CACHE_GIB", value)
        with pytest.raises(UserError, match=f"WAGGLE_CACHE_GIB is '{value}'; allowed is a number"):
            limit_bytes()

    def test_on_a_full_disk(
        self, store: PixelStore, root: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(writer_module, "write_table", full)
        stored = fill(store, index_of(root))
        assert "WARNING: decoded pictures can't be kept: [Errno 28]" in capsys.readouterr().err
        assert stored.pixels(0) is None
        assert not list(store.folder.glob("*pixels*"))

    @pytest.mark.skipif(sys.platform == "win32", reason="not on this system: file size limits")
    def test_what_was_written_to_a_full_disk_is_given_back(
        self, store: PixelStore, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """While other pictures are still looked at, which may take an hour."""
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            with closing(Writer(PixelStore(64, "stretch", store.place), 10**9)) as adding:
                for number in range(4):  # of 12,288 bytes
                    adding.keep(f"{number:032x}", Image.new("RGB", (9, 9)))
                (part,) = store.place.glob("*/*.tmp")
                assert part.stat().st_size == 0
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        assert "WARNING: decoded pictures can't be kept: [Errno 27]" in capsys.readouterr().err
        assert not list(store.place.glob("*/*pixels*"))

    def test_where_nothing_can_be_written(
        self, root: Path, tmp_path: Path, decoded: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "file").write_text("not a folder")
        index = index_of(root)
        decoded.clear()
        stored = fill(PixelStore(SIDE, "stretch", tmp_path / "file"), index)
        assert stored.pixels(0) is None
        err = capsys.readouterr().err
        assert "WARNING: decoded pictures can't be kept" in err
        assert "holds 0 of 12 decoded pictures; the others" in err  # no word about a limit
        assert decoded == []

    @pytest.mark.parametrize("damaged", [False, True])
    def test_that_others_own_stays(
        self, damaged: bool, store: PixelStore, root: Path, gib: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        """A file that can't be removed: another is, and a damaged one ends nothing."""
        index, halves = index_of(root), np.arange(NUM) < NUM // 2
        fill(store, index, halves)
        fill(store, index, ~halves)
        first, second = sorted(segments(store), key=lambda path: path.stat().st_mtime_ns)
        if damaged:
            first.write_bytes(b"")
        else:
            gib(second.stat().st_size)
        real = Path.unlink

        def foreign(path: Path, missing_ok: bool = False) -> None:
            if path == first:
                raise PermissionError(errno.EACCES, "Permission denied")
            real(path, missing_ok)

        os.utime(first, (1, 1))
        monkeypatch.setattr(Path, "unlink", foreign)
        stored = fill(store, index)
        assert first.exists()
        assert second.exists() == damaged
        assert bool((stored.files >= 0).all()) == damaged


def test_a_large_store_is_made_of_several_segments(
    store: PixelStore, root: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that little is lost by a kill, and little goes to make room."""
    monkeypatch.setattr(writer_module, "SEGMENT_BYTES", 4 * ONE)
    index = index_of(root)
    fill(store, index)
    assert len(segments(store)) == 3
    assert_right(store, index)
    decoded.clear()
    fill(store, index)
    assert decoded == []


def test_what_data_cache_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert open_store(False, SIDE, "crop") is None
    ours, own = open_store(True, SIDE, "crop"), open_store(str(tmp_path / "a"), SIDE, "crop")
    assert ours is not None and own is not None
    assert (ours.place, own.place) == (tmp_path / "waggle" / "pixels", tmp_path / "a")
    assert ours.folder != PixelStore(SIDE, "stretch").folder != PixelStore(9, "stretch").folder


@pytest.mark.parametrize("cache", ["{root}", "{root}/ant/new", "{root}/../pictures/x"])
def test_a_place_inside_the_data_is_refused(cache: str, root: Path) -> None:
    with pytest.raises(UserError, match=r"lies inside --data.root .*Give a folder outside"):
        DataModule(root=str(root), cache=cache.format(root=root)).prepare("fit")


def test_a_cache_home_inside_the_data_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless its name begins with a dot, as that of ~/.cache: such names are no data."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / ".cache"))
    DataModule(root=str(root)).prepare("fit")
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    with pytest.raises(UserError, match=r"cache folder .*XDG_CACHE_HOME\) lies inside --data.root"):
        DataModule(root=str(root), cache=False).prepare("fit")


def test_a_place_that_is_no_folder_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--data\.cache is empty"):
        DataModule(root=str(root), cache=" ").prepare("fit")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--data\.cache \S+ is a file\. Give true, false or a f"):
        DataModule(root=str(root), cache=str(tmp_path / "file")).prepare("fit")


class TestCommand:
    def test_lists(self, store: PixelStore, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        fill(store, index_of(root))
        assert main(["--place", str(store.place)]) == 0
        head, row, total = capsys.readouterr().out.splitlines()
        assert head.split("  ")[0] == "pictures of (rule, pixels, decoder)"
        assert re.match(rf"stretch-16-pillow-\S+ +{NUM} +0\.0 +\d{{4}}-\d\d-\d\d", row)
        assert total.startswith("0.0 of 20,480 MiB (WAGGLE_CACHE_GIB) in ")

    @pytest.mark.parametrize(
        "words",
        [["--days", "30"], ["--days", "0"], ["--clear", "--days=-1"], ["--clear", "--days=nan"]],
    )
    def test_days_that_mean_nothing(
        self, words: list[str], store: PixelStore, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--place", str(store.place), *words]) == 2
        assert "allowed is 0 or more, beside --clear" in capsys.readouterr().err

    def test_a_place_that_is_none(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["--place", str(tmp_path / "none"), "--clear"]) == 2
        assert re.search(r"--place \S+none: there is no such folder", capsys.readouterr().err)

    def test_clears(
        self, store: PixelStore, root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fill(store, index_of(root))
        assert main(["--place", str(store.place), "--clear", "--days", "1"]) == 0
        assert segments(store)
        assert main(["--place", str(store.place), "--clear"]) == 0
        assert not segments(store)
        assert "removed 1 files" in capsys.readouterr().out

    def test_what_was_seen_of_files_goes_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        seen = tmp_path / "waggle/scans/a.scans"
        seen.parent.mkdir(parents=True)
        seen.write_bytes(bytes(2**20))
        assert main(["--clear", "--days", "1"]) == 0
        assert "1.0 MiB on what the files of 1 data.root held" in capsys.readouterr().out
        assert main(["--clear"]) == 0
        assert "removed 1 files, 1.0 MiB" in capsys.readouterr().out
        assert not seen.exists()

    def test_no_home(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def homeless() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(command, "cache_home", homeless)
        assert main([]) == 2
        assert "Name a folder by --place DIR or XDG_CACHE_HOME" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="not on this system: users in paths")
def test_a_place_of_a_user_that_is_none(root: Path) -> None:
    with pytest.raises(UserError, match=r"--data\.cache ~nobody-at-all/x: .*Give true, false or a"):
        DataModule(root=str(root), cache="~nobody-at-all/x").prepare("fit")


def test_the_limit_holds_while_pictures_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old segments go as new ones come, and not when all have come."""
    draw = np.random.default_rng(0)
    monkeypatch.setattr(writer_module, "SEGMENT_BYTES", 3_000)
    monkeypatch.setenv("WAGGLE_CACHE_GIB", str(8_000 / 2**30))
    most = 0
    for side in (15, 16):
        for path in tmp_path.rglob("*.pixels"):
            os.utime(path, (1, 1))  # older by more than a clock's tick
        store = PixelStore(side, "stretch", tmp_path)
        with closing(Writer(store, limit_bytes())) as writer:
            for number in range(20):
                picture = draw.integers(0, 256, (side, side, 3), np.uint8)
                writer.keep(f"{number:032x}", Image.fromarray(picture))
                sizes = [path.stat().st_size for path in tmp_path.rglob("*.pixels")]
                most = max(most, sum(sizes))
    assert 4_000 < most <= 8_000
    assert all(path.parent.name.startswith("stretch-16") for path in tmp_path.rglob("*.pixels"))
