"""The few numbers that stand for a picture, and when a file has to be opened for them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from src.data import looks
from src.data.looks import SIDE, Looker, kept_looks, look_at, looks_of
from src.data.scans import scan
from src.errors import RunFailureError


def noise(seed: int, size: tuple[int, int] = (60, 80)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


class TestLook:
    def test_of_a_flat_picture(self) -> None:
        (look,) = look_at(Image.new("RGB", (50, 20), (100, 100, 100)))
        assert (look["brightness"], look["sharpness"]) == (100, 0)
        assert look["thumb"].shape == (SIDE, SIDE)
        assert {*look["thumb"].flat} == {100}

    def test_blur_takes_sharpness_away_and_leaves_brightness(self) -> None:
        sharp = look_at(noise(0))
        blurred = look_at(noise(0).filter(ImageFilter.GaussianBlur(2)))
        assert blurred["sharpness"] < sharp["sharpness"] / 10
        assert blurred["brightness"] == pytest.approx(sharp["brightness"], abs=1)

    def test_the_laplacian_by_hand(self) -> None:
        """One pixel of 10 in 5 x 5: -40 there, 10 at four sides, 0 at the other four inner ones."""
        pixels = np.zeros((5, 5, 3), np.uint8)
        pixels[2, 2] = 10
        (look,) = look_at(Image.fromarray(pixels))
        assert look["sharpness"] == pytest.approx((1600 + 4 * 100) / 9)  # their mean is 0

    def test_sharpness_is_that_of_256_pixels(self) -> None:
        """Else a large picture would be blurred beside a small one of the same scene."""
        large = noise(1, (64, 64)).resize((1024, 1024), Image.Resampling.BICUBIC)
        half = large.resize((512, 512), Image.Resampling.BOX)
        assert look_at(large)["sharpness"] == pytest.approx(look_at(half)["sharpness"], rel=0.1)

    @pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (2, 2), (3, 3), (5000, 2)])
    def test_of_any_size(self, size: tuple[int, int]) -> None:
        look = look_at(Image.new("RGB", size, "white"))
        assert (look["brightness"][0], look["sharpness"][0]) == (255, 0)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """A cache of the test's own, and three pictures of which two are equal."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "data"
    root.mkdir()
    for name, seed in (("a.png", 0), ("b.png", 1), ("c.png", 0)):
        noise(seed).save(root / name)
    return root, ["a.png", "b.png", "c.png"]


class TestLooksOf:
    def test_what_a_scan_has_gathered_is_not_decoded_again(
        self, files: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root, names = files
        looker = Looker()
        hashes = [found.hash for found in scan(root, names, keep=looker)]
        asked: list[str] = []
        monkeypatch.setattr(looks, "scan_all", lambda root, paths, *_: asked.extend(paths) or [])
        found = looks_of(root, names, hashes, looker)
        expected = np.concatenate([look_at(Image.open(root / name)) for name in names])
        assert found.tobytes() == expected.tobytes()
        assert asked == []

    def test_what_is_known_by_a_scan_alone_is_decoded_once(
        self, files: tuple[Path, list[str]]
    ) -> None:
        root, names = files
        hashes = [found.hash for found in scan(root, names)]
        looker = Looker()
        found = looks_of(root, names, hashes, looker)
        assert {*looker.found} == {*hashes} and len(looker.found) == 2
        assert found[0] == found[2] != found[1]

    def test_of_nothing(self, tmp_path: Path) -> None:
        assert looks_of(tmp_path, [], [], Looker()).shape == (0,)

    def test_a_picture_that_changes_meanwhile(self, files: tuple[Path, list[str]]) -> None:
        root, names = files
        hashes = [found.hash for found in scan(root, names)]
        noise(9).save(root / "b.png")
        with pytest.raises(RunFailureError, match=r"b\.png has changed meanwhile\. Start again\."):
            looks_of(root, names, hashes, Looker())

    def test_a_picture_that_goes_meanwhile(self, files: tuple[Path, list[str]]) -> None:
        root, names = files
        hashes = [found.hash for found in scan(root, names)]
        os.truncate(root / "b.png", 200)
        with pytest.raises(RunFailureError, match=r"b\.png could be read before and can't now: "):
            looks_of(root, names, hashes, Looker())

    def test_they_are_kept_for_the_same_content(
        self, files: tuple[Path, list[str]], tmp_path: Path
    ) -> None:
        root, names = files
        hashes = [found.hash for found in scan(root, names)]
        first = kept_looks(tmp_path / "place", root, names, hashes, Looker())
        gone = tmp_path / "nowhere"  # nothing is opened
        again = kept_looks(tmp_path / "place", gone, names, hashes, Looker())
        assert again.dtype == first.dtype and again.tobytes() == first.tobytes()
