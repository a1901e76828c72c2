"""Scanning: hashes, notes, damage, the cache; checking: which files keep training from starting."""

import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from src.data import audit, remembered, scans
from src.data.audit import Scan, check, count_notes, scan, scan_file
from src.data.index import Listing
from src.errors import UserError

GOOD = Scan("00", 4, 4, "")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """Give each test a cache of its own; return the folder that holds its files."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home / "waggle" / "scans"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Return a list that grows by the name of each file that is really decoded."""
    names: list[str] = []
    real = scans.scan_file

    def counting(path: Path, keep: scans.Keep | None) -> Scan:
        names.append(path.name)
        return real(path, keep)

    monkeypatch.setattr(scans, "scan_file", counting)
    return names


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (20, 30), **options) -> Path:
    """Save seeded noise (height, width) at path; return the path."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def listing_of(paths, labels, splits=None) -> Listing:
    blank = ("",) * len(paths)
    return Listing(Path("/data"), tuple(paths), tuple(labels), tuple(splits or blank), blank)


# One file


def test_a_scan_holds_upright_size_and_hash(tmp_path):
    found = scan_file(picture(tmp_path / "a.png"))
    assert (found.width, found.height, found.error, found.notes) == (30, 20, "", ())
    assert len(found.hash) == 32


def test_the_hash_is_of_the_pixels_and_not_of_the_file(tmp_path):
    first = scan_file(picture(tmp_path / "a.png"))
    assert scan_file(picture(tmp_path / "a.bmp")).hash == first.hash
    assert scan_file(picture(tmp_path / "b.png", seed=1)).hash != first.hash
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = scan_file(picture(tmp_path / "c.png", exif=exif))
    assert (turned.width, turned.hash == first.hash) == (30, False)


def test_the_hash_tells_shapes_with_the_same_bytes_apart(tmp_path):
    wide, high = (
        scan_file(picture(tmp_path / f"{size[0]}.png", size=size)) for size in ((10, 20), (20, 10))
    )
    assert wide.hash != high.hash


def test_the_hash_is_the_same_on_every_machine(tmp_path):
    Image.new("RGB", (2, 1), (1, 2, 3)).save(tmp_path / "a.png")
    expected = blake2b(b"2x1:" + bytes([1, 2, 3] * 2), digest_size=16).hexdigest()
    assert scan_file(tmp_path / "a.png").hash == expected


@pytest.mark.parametrize(
    ("name", "mode", "options", "notes"),
    [
        ("a.png", "RGB", {}, ()),
        ("a.JPEG", "RGB", {}, ()),
        ("a", "RGB", {"format": "PNG"}, ()),
        ("a.jpg", "RGB", {"format": "PNG"}, ("suffix says JPEG, content is PNG",)),
        ("a.png", "RGB", {"format": "JPEG"}, ("suffix says PNG, content is JPEG",)),
        ("a.jpg", "CMYK", {}, ("CMYK",)),
        ("a.png", "RGBA", {}, ("alpha",)),
        ("a.png", "I;16", {}, ("16-bit",)),
        ("a.tiff", "F", {}, ("float",)),
        ("a.tif", "CMYK", {}, ("CMYK",)),
    ],
)
def test_notes_are_never_errors(tmp_path, name, mode, options, notes):
    Image.new(mode, (9, 9)).save(tmp_path / name, **options)
    found = scan_file(tmp_path / name)
    assert (found.error, found.notes) == ("", notes)


def test_a_colour_png_of_16_bits_is_noted(tmp_path):
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 4, 3), 40_000, np.uint16))
    assert scan_file(tmp_path / "a.png").notes == ("16-bit",)


@pytest.mark.parametrize(("orientation", "notes"), [(1, ()), (2, ("EXIF-rotated",)), (9, ())])
def test_an_exif_orientation_is_noted(tmp_path, orientation, notes):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert scan_file(picture(tmp_path / "a.jpg", exif=exif)).notes == notes


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_trailing_bytes_are_noted(tmp_path, suffix):
    path = picture(tmp_path / f"a.{suffix}")
    plain = scan_file(path)
    path.write_bytes(path.read_bytes() + b"appended by some tool")
    assert scan_file(path) == Scan(plain.hash, 30, 20, "", ("trailing bytes",))


def test_a_missing_end_marker_is_noted_also_beside_a_thumbnail(tmp_path):
    thumbnail = io.BytesIO()
    Image.new("RGB", (8, 8)).save(thumbnail, "JPEG")
    # A picture in the header, with an end marker of its own.
    path = picture(tmp_path / "a.jpg", comment=thumbnail.getvalue())
    plain = scan_file(path)
    path.write_bytes(path.read_bytes()[:-2])
    assert scan_file(path) == Scan(plain.hash, 30, 20, "", ("no end marker",))


def test_damage_of_every_kind_is_an_error_and_raises_nothing(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("hello")
    cut = picture(tmp_path / "cut.jpg")
    cut.write_bytes(cut.read_bytes()[:-60])
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    names = ["empty.jpg", "text.jpg", "cut.jpg", "folder.jpg", "link.jpg"]
    found = scan(tmp_path, names)
    assert [result.error for result in found] == [
        "empty file",
        "not a picture",
        "truncated: pixels are missing at the end",
        "can't be read: Is a directory",
        "no such file, or a link to nothing",
    ]
    assert all(not result.hash and not result.width for result in found)


# Many files, and the cache


def test_scans_come_in_the_order_of_the_paths(tmp_path):
    paths = [f"{i}.png" for i in range(20)]
    for i, name in enumerate(paths):
        picture(tmp_path / name, seed=i)
    expected = [scan_file(tmp_path / name) for name in paths]
    assert scan(tmp_path, paths) == expected
    assert scan(tmp_path, [*paths[::-1], paths[3]]) == [*expected[::-1], expected[3]]


def test_nothing_is_scanned_for_nothing(tmp_path, cache):
    assert scan(tmp_path, []) == []
    assert not cache.exists()


def test_a_second_start_decodes_nothing(tmp_path, decoded, cache):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    first = scan(tmp_path, ["a.png", "b.png"])
    assert sorted(decoded) == ["a.png", "b.png"]
    assert scan(tmp_path, ["a.png", "b.png"]) == first
    assert len(decoded) == 2
    assert [path.suffix for path in cache.iterdir()] == [".scans"]


def test_what_is_remembered_counts_as_used(tmp_path, cache):
    """So that clearing what was not used for days leaves it alone."""
    picture(tmp_path / "a.png")
    scan(tmp_path, ["a.png"])
    (file,) = cache.iterdir()
    os.utime(file, (1, 1))
    scan(tmp_path, ["a.png"])
    assert file.stat().st_mtime > 1


def test_a_changed_file_is_decoded_again(tmp_path, decoded):
    picture(tmp_path / "a.bmp", seed=0)
    picture(tmp_path / "b.bmp", seed=1)
    first = scan(tmp_path, ["a.bmp", "b.bmp"])
    status = (tmp_path / "a.bmp").stat()
    picture(tmp_path / "a.bmp", seed=2)  # the same number of bytes
    os.utime(tmp_path / "a.bmp", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    second = scan(tmp_path, ["a.bmp", "b.bmp"])
    assert decoded[2:] == ["a.bmp"]
    assert second[0].hash != first[0].hash and second[1] == first[1]


@pytest.mark.parametrize("changed", ["st_size", "st_mtime_ns", "st_ctime_ns"])
def test_each_mark_of_a_change_counts(monkeypatch, changed):
    """By Windows st_ctime is the creation, and later than the modification of any copy."""
    before = {"st_size": 7, "st_mtime_ns": 100, "st_ctime_ns": 900}
    after = before | {changed: before[changed] - 1}
    marks = []
    for status in (before, after):
        monkeypatch.setattr(os, "stat", lambda path, s=status: SimpleNamespace(**s))
        marks.append(remembered.keys_of(Path("/data"), ["a.bmp"]))
        monkeypatch.undo()
    assert (marks[0] != marks[1]).any()


def test_scanning_a_part_forgets_nothing_of_the_rest(tmp_path, decoded):
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    scan(tmp_path, ["a.png", "b.png"])
    scan(tmp_path, ["c.png"])
    scan(tmp_path, ["a.png", "b.png", "c.png"])
    assert sorted(decoded) == ["a.png", "b.png", "c.png"]


def test_each_root_has_its_own_cache_however_it_is_reached(tmp_path, decoded, cache):
    picture(tmp_path / "one" / "a.png")
    picture(tmp_path / "two" / "a.png", seed=1)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert scan(tmp_path / "one", ["a.png"]) != scan(tmp_path / "two", ["a.png"])
    assert scan(tmp_path / "link", ["a.png"]) == scan(tmp_path / "one", ["a.png"])
    assert (len(decoded), len(list(cache.iterdir()))) == (2, 2)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "noise", "rules"])
def test_a_damaged_cache_is_rebuilt_in_silence(tmp_path, decoded, cache, damage, capfd):
    picture(tmp_path / "a.png")
    first = scan(tmp_path, ["a.png"])
    (file,) = cache.iterdir()
    data = file.read_bytes()
    at = data.index(bytes.fromhex(first[0].hash))
    file.write_bytes(
        {
            "cut": data[:-5],
            "flip": data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
            "empty": b"",
            "noise": bytes(range(256)),
            "rules": b"0" * 32 + b"\n" + json.dumps({"a.png": "of another version"}).encode(),
        }[damage]
    )
    assert scan(tmp_path, ["a.png"]) == first
    assert scan(tmp_path, ["a.png"]) == first
    assert decoded == ["a.png", "a.png"]
    assert capfd.readouterr() == ("", "")


def test_another_pillow_decodes_again(tmp_path, decoded, monkeypatch):
    picture(tmp_path / "a.png")
    scan(tmp_path, ["a.png"])
    monkeypatch.setattr(remembered, "_RULES", "another")
    scan(tmp_path, ["a.png"])
    assert len(decoded) == 2


def test_a_cache_that_cannot_be_written_is_none(tmp_path, decoded, monkeypatch, capfd):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a folder below can't be made
    picture(tmp_path / "a.png")
    assert scan(tmp_path, ["a.png"]) == scan(tmp_path, ["a.png"])
    assert len(decoded) == 2
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_leaves_no_half_written_cache(tmp_path, cache, monkeypatch):
    picture(tmp_path / "a.png")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    assert scan(tmp_path, ["a.png"])[0].error == ""
    assert list(cache.iterdir()) == []


def test_a_file_that_cannot_be_read_now_is_tried_again(tmp_path, decoded, monkeypatch):
    picture(tmp_path / "a.png")

    def deny(path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(scans, "decode", deny)
        assert scan(tmp_path, ["a.png"])[0].error == "can't be read: Permission denied"
    assert scan(tmp_path, ["a.png"])[0].error == ""


def test_an_interrupted_scan_keeps_what_it_has_decoded(tmp_path, monkeypatch):
    names = [f"{i}.png" for i in range(3)]
    for name in names:
        picture(tmp_path / name)
    real, done = scans.scan_file, []

    def interrupted(path, keep):
        if path.name == "2.png":
            raise KeyboardInterrupt
        done.append(path.name)
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(scans, "scan_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            scan(tmp_path, names)
    monkeypatch.setattr(scans, "scan_file", interrupted)
    done.clear()
    scan(tmp_path, names[:2])
    assert done == []


def test_few_files_wait_at_a_time_however_many_there_are(monkeypatch):
    monkeypatch.setattr(scans, "MAX_QUEUED", 4)
    taken: list[str] = []

    def paths() -> Iterator[str]:
        for i in range(50):
            taken.append(str(i))
            yield taken[-1]

    with ThreadPoolExecutor(2) as pool:
        ahead = [
            (result, len(taken) - done)
            for done, result in enumerate(scans._in_order(pool, lambda path: path, paths()))
        ]
    assert [result for result, _ in ahead] == taken
    assert max(count for _, count in ahead) == 4


def test_what_is_remembered_of_every_kind_of_file(tmp_path, decoded, cache):
    """Sizes, notes, errors and hashes come back as they were; the file holds each path once."""
    picture(tmp_path / "a.png", size=(3, 500))
    picture(tmp_path / "odd.jpg", format="PNG")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "line\nbreak.png").write_bytes(b"no picture")
    names = ["odd.jpg", "deep/line\nbreak.png", "a.png", "odd.jpg"]
    first = scan(tmp_path, names)
    assert [found.error for found in first] == ["", "not a picture", "", ""]
    assert scan(tmp_path, names) == first
    assert sorted(decoded) == ["a.png", "line\nbreak.png", "odd.jpg"]
    known = remembered.read(next(cache.iterdir()))
    assert sorted(known.paths) == sorted(set(names))


def test_a_file_that_is_away_for_a_while_is_not_forgotten(tmp_path, decoded):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", seed=1)
    first = scan(tmp_path, ["a.png", "b.png"])
    (tmp_path / "data").mkdir()
    for link in ("a.png", "b.png"):
        (tmp_path / "data" / link).symlink_to(tmp_path / link)
    assert scan(tmp_path / "data", ["a.png", "b.png"]) == first
    (tmp_path / "data" / "a.png").unlink()
    assert "no such file" in scan(tmp_path / "data", ["a.png", "b.png"])[0].error
    (tmp_path / "data" / "a.png").symlink_to(tmp_path / "a.png")
    decoded.clear()
    assert scan(tmp_path / "data", ["a.png", "b.png"]) == first
    assert decoded == []


def test_names_that_are_no_utf8_are_remembered(tmp_path, decoded):
    name = os.fsdecode(b"caf\xe9.png")
    picture(tmp_path / "a.png").rename(tmp_path / name)
    assert scan(tmp_path, [name]) == scan(tmp_path, [name])
    assert len(decoded) == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("show", [True, False])
def test_a_bar_on_a_terminal_and_no_noise_elsewhere(tmp_path, monkeypatch, capfd, show):
    picture(tmp_path / "a.png")
    scan(tmp_path, ["a.png"], show_progress=True)
    assert capfd.readouterr() == ("", "")
    picture(tmp_path / "b.png")
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    scan(tmp_path, ["b.png"], show_progress=show)
    assert ("checking pictures" in terminal.getvalue()) is show


# Which files keep training from starting


def test_sound_files_are_all_kept():
    listing = listing_of("abc", ["bee", "wasp", "bee"])
    assert check(listing, [GOOD] * 3, on_bad_image="error") == ((0, 1, 2), ())


def test_damaged_files_are_listed_by_reason_with_counts():
    listing = listing_of("abcd", ["bee", "wasp", "bee", "wasp"])
    bad = [Scan("", 0, 0, reason) for reason in ("not a picture", "empty file", "empty file")]
    with pytest.raises(UserError, match="3 of 4 files in /data are no sound pictures") as caught:
        check(listing, [*bad, GOOD], on_bad_image="error")
    assert "  empty file (2):\n    b\n    c\n  not a picture (1):\n    a\n" in str(caught.value)
    assert "--data.on_bad_image skip" in str(caught.value)


def test_a_long_list_is_cut_at_twenty_and_every_reason_still_counted():
    paths = [f"{i}.jpg" for i in range(57)]
    bad = [Scan("", 0, 0, "empty file" if i else "not a picture") for i in range(57)]
    with pytest.raises(UserError, match="and 37 more") as caught:
        check(listing_of(paths, ["bee"] * 57), bad, on_bad_image="error")
    assert str(caught.value).count(".jpg") == audit.MAX_LISTED
    assert "empty file (56)" in str(caught.value) and "not a picture (1)" in str(caught.value)


def test_skip_leaves_them_out():
    listing = listing_of("abcd", ["bee", "wasp", "bee", "wasp"])
    found = [GOOD, Scan("", 0, 0, "empty file"), GOOD, GOOD]
    assert check(listing, found, on_bad_image="skip") == ((0, 2, 3), (1,))


@pytest.mark.parametrize("splits", [None, ["train", "train", "test", "train"]])
def test_skip_must_leave_every_class_something_to_train_on(splits):
    listing = listing_of("abcd", ["bee", "wasp", "wasp" if splits else "bee", "bee"], splits)
    found = [GOOD, Scan("", 0, 0, "empty file"), GOOD, GOOD]
    with pytest.raises(UserError, match="leaves 'wasp' without a picture to train on"):
        check(listing, found, on_bad_image="skip")


def test_skip_must_leave_something():
    bad = [Scan("", 0, 0, "empty file")] * 2
    with pytest.raises(UserError, match="leaves nothing"):
        check(listing_of("ab", ["", ""], ["test", "test"]), bad, on_bad_image="skip")


def test_notes_are_counted():
    found = [Scan("1", 1, 1, "", ("alpha", "16-bit")), Scan("2", 1, 1, "", ("alpha",)), GOOD]
    assert count_notes(found) == {"alpha": 2, "16-bit": 1}


# Real photographs


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
def test_real_photographs_with_their_real_faults():
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "bee-wasp"
    root = Path(os.environ.get("BEE_WASP_ROOT", beside))
    odd = {
        "test/bee/2519159685_ac586c65da_n.jpg": ("suffix says JPEG, content is PNG",),
        "train/bee/509769820_83fa0a3ea9_n.jpg": ("CMYK",),
        "train/bee/6631388989_a751570c37_n.jpg": (),
        "test/bee/7161636973_0453a2225d_n.jpg": (),
    }
    if not all((root / name).is_file() for name in odd):
        pytest.skip("no photographs: set BEE_WASP_ROOT to the bee-wasp folder")
    found = scan(root, list(odd))
    assert [result.error for result in found] == [""] * 4
    assert [result.notes for result in found] == list(odd.values())
    assert found[2].hash == found[3].hash  # the same bee in train and in test
