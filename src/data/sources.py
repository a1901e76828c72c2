"""Where data come from when no folder is given: the built-in insects, or an archive on the web.

A source makes one folder in the user's cache, once a machine: under a lock that dies with its
process, in a temporary folder beside, and put in place by one rename. So a folder that is there is
complete, whoever was killed while making it.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import unquote, urlsplit

from src.data.download import download, shown
from src.data.home import alone, cache_home
from src.data.insects import write_insects
from src.data.unpack import unpack
from src.errors import RunFailureError, UserError

# Part of the folder's name: pictures drawn by an older program are not taken for these.
INSECTS_VERSION = 1


class Source(Protocol):
    """Anything with a `fetch`; name your own class by its class_path in `data.source`."""

    def fetch(self) -> Path:
        """Return a complete folder `root/{train,test}/<class>/*` or `root/<class>/*`.

        The first call makes it; later calls, also of other processes, find it and are quick.
        """
        ...


class SyntheticInsects(Source):
    """Bees and wasps drawn by the program: small, offline and the same on every call.

    Pose, scale, light and background are random, and both classes have the same average colour: a
    linear model on the pixels stays near chance, a small convolutional network passes 95 %.
    `boxes.csv` in the folder holds the box of each insect: path,x0,y0,x1,y1, in pixels, half-open.

    Args:
        train_per_class: Training pictures of each class, from 1.
        test_per_class: Test pictures of each class, from 1.
        picture_size: Side of a picture in pixels, 16 to 1024.
        seed: Of the pictures, from 0; apart from the run's seed, so that all runs share them.

    Raises:
        UserError: for a value out of range.
    """

    def __init__(
        self,
        train_per_class: int = 500,
        test_per_class: int = 200,
        picture_size: int = 96,
        seed: int = 0,
    ) -> None:
        _check_range("train_per_class", train_per_class, 1)
        _check_range("test_per_class", test_per_class, 1)
        _check_range("picture_size", picture_size, 16, 1024)
        _check_range("seed", seed, 0)
        self.counts = {"train": train_per_class, "test": test_per_class}
        self.picture_size = picture_size
        self.seed = seed

    def fetch(self) -> Path:
        """Return the folder with the pictures, drawn at the first call."""
        parts = [INSECTS_VERSION, *self.counts.values(), self.picture_size, self.seed]
        return make_once("insects-v" + "-".join(str(part) for part in parts), self._draw)

    def _draw(self, folder: Path) -> None:
        write_insects(folder, self.counts, self.picture_size, self.seed)


class Archive(Source):
    """A zip or tar archive on the web, downloaded once and unpacked into the cache.

    A download that broke off is taken up where it stopped. Members that lead out of the folder,
    links, and archives that unpack to absurd sizes are refused. Files whose name begins with a dot
    and the `__MACOSX` folder are left out.

    Args:
        url: Address of the archive, http or https.
        sha256: Checksum of the archive, 64 hexadecimal digits. None leaves it unchecked.
        subfolder: Folder inside the archive that holds the data; empty means its top.
        counts: Files that must lie under a folder, however deep, for each folder named: for example
            {train: 3677, test: 918}. None leaves them uncounted.
        name: What the folder in the cache is called, before a hyphen and a short hash of url and
            sha256. None means the archive's file name.

    Raises:
        UserError: for an address, a checksum or a name that can't be right.
    """

    def __init__(
        self,
        url: str,
        sha256: str | None = None,
        subfolder: str = "",
        counts: dict[str, int] | None = None,
        name: str | None = None,
    ) -> None:
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise UserError(
                f"data.source.url is '{url}'; allowed are http:// and https:// addresses."
            )
        if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
            raise UserError(
                f"data.source.sha256 is '{sha256}'; allowed are 64 hexadecimal digits, as "
                "`sha256sum FILE` prints them, or null."
            )
        _check_inside("subfolder", subfolder)
        for folder in counts or {}:
            _check_inside("counts", folder)
        self.url, self.sha256 = url, sha256.lower() if sha256 else None
        self.subfolder, self.counts = subfolder, dict(counts or {})
        self.name = _cache_name(name, unquote(address.path), f"{url} {self.sha256}")

    def fetch(self) -> Path:
        """Return the folder with the data, downloaded and unpacked at the first call."""
        root = make_once(self.name, self._download) / self.subfolder
        self._check(root, mend=f"delete {data_home() / self.name} to fetch it again")
        return root

    def _download(self, folder: Path) -> None:
        archive = data_home() / f"{self.name}.archive"
        download(self.url, archive, self.sha256)
        unpack(archive, folder)
        self._check(folder / self.subfolder, mend="correct data.source, or get the whole archive")
        archive.unlink()  # kept until here: whoever corrects `counts` need not download again

    def _check(self, root: Path, mend: str) -> None:
        """Compare the folder with what the config says about it."""
        if not root.is_dir():
            above = root if root.exists() else root.parent
            found = sorted(entry.name for entry in above.iterdir()) if above.is_dir() else []
            raise UserError(
                f"the archive {shown(self.url)} has no folder '{self.subfolder}'; found: "
                f"{', '.join(found[:10]) or 'nothing'}. Correct data.source.subfolder."
            )
        for name, expected in self.counts.items():
            found_files = sum(path.is_file() for path in (root / name).rglob("*"))
            if found_files != expected:
                raise UserError(
                    f"data.source.counts says {expected} files under '{name}', the archive "
                    f"{shown(self.url)} gave {found_files}: {mend}."
                )


def data_home() -> Path:
    """Return the folder that all fetched data lie in: `$XDG_CACHE_HOME/waggle/data`."""
    return cache_home() / "data"


def make_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder `name` of the cache, made by the first process that asks for it.

    Args:
        name: Of the folder, in `data_home()`.
        make: Fills an empty folder. What it raises leaves nothing behind.

    Raises:
        RunFailureError: if the cache can't be written.
    """
    target = data_home() / name
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target.with_name(f"{target.name}.lock"), f"making {target}"):
            _sweep(target)
            if not target.is_dir():  # else another process has made it while this one waited
                _make(target, make)
    except OSError as error:
        raise RunFailureError(
            f"the data can't be written to {target.parent}: {error}. Make room there or name "
            "another folder: export XDG_CACHE_HOME=DIR."
        ) from error
    return target


def _sweep(target: Path) -> None:
    """Delete what killed attempts left; under the lock nobody else can be at work there."""
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        shutil.rmtree(leftover)


def _make(target: Path, make: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}.", suffix=".tmp", dir=target.parent
    ) as scratch:
        folder = Path(scratch) / "data"  # made by us: mkdtemp's own is closed to the group
        folder.mkdir()
        make(folder)
        folder.rename(target)


def _cache_name(name: str | None, path: str, identity: str) -> str:
    """Return a plain folder name that differs for another address or checksum."""
    plain = "[A-Za-z0-9][A-Za-z0-9._-]*"
    if name is not None and not re.fullmatch(plain, name):
        raise UserError(
            f"data.source.name is '{name}'; allowed are letters, digits, '.', '_' and '-'."
        )
    stem = re.sub("[^A-Za-z0-9_-]+", "-", PurePosixPath(path).name.split(".")[0]).strip("-")
    return f"{name or stem or 'archive'}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def _check_inside(argument: str, folder: str) -> None:
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts or "\\" in folder:
        raise UserError(
            f"data.source.{argument} names '{folder}'; allowed are folders inside the archive, "
            "written with '/'."
        )


def _check_range(argument: str, value: int, least: int, most: int | None = None) -> None:
    if value < least or (most is not None and value > most):
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        raise UserError(f"data.source.{argument} is {value}; allowed is {allowed}.")
