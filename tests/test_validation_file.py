"""validation.npz of a bundle: what does not fit is refused."""

from pathlib import Path

import numpy as np
import pytest

from src import validation_file
from src.errors import UserError
from src.validation_file import Arrays, read_validation


def arrays() -> Arrays:
    """Three pictures of two classes, two of them shown."""
    return {
        "probabilities": np.array([[0.1, 0.9], [0.5, 0.5], [1, 0]], np.float32),
        "labels": np.array([1, 0, 0]),
        "features": np.eye(2, 4, dtype=np.float16),
        "shown": np.array([0, 2]),
        "jpeg": np.zeros(7, np.uint8),
        "ends": np.array([3, 7]),
    }


def read(folder: Path, found: Arrays, features: int | None = 4) -> Arrays:
    np.savez(folder / "v.npz", allow_pickle=False, **found)
    return read_validation(folder / "v.npz", 2, features)


def test_what_fits_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, arrays())
    assert all((found[name] == value).all() for name, value in arrays().items())
    bare = {name: arrays()[name] for name in ("probabilities", "labels")}
    assert read(tmp_path, bare, None).keys() == bare.keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probabilities", np.ones((3, 3), np.float32)),
        ("probabilities", np.full((3, 2), np.nan, np.float32)),
        ("probabilities", np.full((3, 2), 1.5, np.float32)),
        ("labels", np.array([1, 0])),
        ("labels", np.array([1, 0, 2])),
        ("labels", np.array([1.0, 0.0, 0.0])),
        ("features", np.eye(2, 5)),
        ("features", np.full((2, 4), np.inf)),
        ("shown", np.array([0, 3])),
        ("shown", np.array([-1, 0])),
        ("jpeg", np.zeros(7, np.int64)),
        ("ends", np.array([3, 8])),
        ("ends", np.array([5, 3])),
        ("ends", np.array([7])),
    ],
)
def test_what_does_not_fit(name: str, value: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"v\.npz is damaged .*Export the run again"):
        read(tmp_path, {**arrays(), name: value})


@pytest.mark.parametrize("name", ["probabilities", "labels", "features", "shown", "jpeg", "ends"])
def test_what_is_missing(name: str, tmp_path: Path) -> None:
    found = arrays()
    del found[name]
    with pytest.raises(UserError, match=name):
        read(tmp_path, found)


def test_what_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation_file, "MOST_BYTES", 500)
    with pytest.raises(UserError, match=r"it holds [\d,]+ bytes; 500 are read"):
        read(tmp_path, arrays())


@pytest.mark.parametrize(("at", "value"), [(6, 1), (8, 97)], ids=["encrypted", "unknown method"])
def test_an_archive_of_another_kind(at: int, value: int, tmp_path: Path) -> None:
    """Flags and method of each file in the archive's own list (APPNOTE 4.3.12)."""
    read(tmp_path, arrays())
    data = bytearray((tmp_path / "v.npz").read_bytes())
    start = data.find(b"PK\x01\x02")
    while start >= 0:
        data[start + at + 2] = value
        start = data.find(b"PK\x01\x02", start + 1)
    (tmp_path / "v.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"v\.npz is damaged .*Export the run again"):
        read_validation(tmp_path / "v.npz", 2, 4)
