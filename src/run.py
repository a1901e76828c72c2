"""The run folder: what lies in it, how it is found again, what may be written over.

No file in it holds the folder's own absolute path, so it may be moved.
"""

import contextlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from src.errors import UserError

_PACKAGES = ("torch", "lightning", "torchmetrics", "albumentations", "wandb", "numpy", "pillow")


class RunFolder:
    """The files of one run.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.samples = self.path / "samples.csv"
        self.record = self.path / "run.json"
        self.metrics = self.path / "metrics.csv"
        self.summary = self.path / "summary.json"
        self.predictions = self.path / "predictions.csv"
        self.pictures = self.path / "pictures"  # what callbacks draw
        self.tables = self.path / "tables"  # what they write down
        self.checkpoints = self.path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.previous = self.checkpoints / "previous.ckpt"

    @property
    def files(self) -> tuple[Path, ...]:
        """What a fit makes before its first step is over."""
        return (self.config, self.samples, self.record, self.metrics, self.summary)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that a fit makes."""
        return (self.checkpoints, self.path / "wandb")

    @property
    def newest_config(self) -> Path:
        """The config of the latest sitting: config.resume-N.yaml, or that of the beginning."""
        return max(self._resume_configs(), default=(0, self.config))[1]

    @property
    def next_config(self) -> Path:
        """Where the config of another sitting goes."""
        number = max(self._resume_configs(), default=(0, self.config))[0] + 1
        return self.path / f"config.resume-{number}.yaml"

    def _resume_configs(self) -> list[tuple[int, Path]]:
        found = self.path.glob("config.resume-*.yaml")
        numbers = [(path.stem.partition("-")[2], path) for path in found]
        return [(int(number), path) for number, path in numbers if number.isdigit()]

    @property
    def holds_run(self) -> bool:
        """Whether anything lies there that a new run would write over."""
        return any(path.exists() for path in (*self.files, *self.folders))

    def require_writable(self, mend: str) -> None:
        """Raise UserError if nothing can be written there, so that no work is lost at its end.

        Args:
            mend: What to do about it.
        """
        there = next(path for path in (self.path, *self.path.parents) if path.exists())
        if not os.access(there, os.W_OK):
            raise UserError(f"nothing can be written into {there}. Make it writable, or {mend}.")

    def require(self, option: str = "--run_dir ") -> "RunFolder":
        """Return self, or raise UserError if this is no run folder.

        Args:
            option: What the folder was given by, for the message.
        """
        if self.path.is_file():
            raise UserError(f"{option}{self.path} is a file. Give a run folder.")
        if not self.path.is_dir():
            raise UserError(f"{option}{self.path}: there is no such folder.")
        if not self.config.is_file():
            inside = sorted(p.name for p in self.path.iterdir())[:6]
            raise UserError(
                f"{option}{self.path} is no run folder: it has no config.yaml (found: "
                f"{', '.join(inside) or 'nothing'}). Give the folder that fit printed last."
            )
        return self

    def require_free(self, but_for_a_start: bool = False) -> None:
        """Raise UserError if a new run must not begin here.

        Args:
            but_for_a_start: Whether a run that never wrote a checkpoint may be begun anew.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--run_dir {self.path} is a file. Give a folder.")
        done = [*sorted(self.checkpoints.glob("*.ckpt")), self.summary]
        kept = next((path for path in done if path.exists()), None)
        if but_for_a_start and self.config.is_file() and kept is not None:
            raise UserError(
                f"--ckpt_path auto: {kept} lies there, and neither {self.last.name} nor "
                f"{self.previous.name} to go on from. Bring one back, or give another --run_dir "
                f"(with --init_from {self.path} it starts from the best weights)."
            )
        if self.holds_run and not (but_for_a_start and self.config.is_file()):
            there = "" if self.begun else ", which has no checkpoint yet"
            raise UserError(
                f"--run_dir {self.path} already holds a run{there}. Go on with it by --ckpt_path "
                "last (or auto, which starts anew if there is no checkpoint), or give another "
                "--run_dir."
            )

    def discard(self) -> None:
        """Remove what was written for a run that never took a step.

        `require_free` has made sure that nothing of these names was there before.
        """
        for path in self.files:
            path.unlink(missing_ok=True)
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        for path in self.files:  # what a write that failed may have left of them
            for rest in self.path.glob(f"*{path.name}*.tmp"):
                rest.unlink(missing_ok=True)
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def checkpoint(self, name: str) -> Path:
        """Return the file that `last`, `best`, `previous` or a path names.

        Raises:
            UserError: if there is no such checkpoint, or it is an address instead of a file.
        """
        if "://" in name:
            raise UserError(f"--ckpt_path {name} is an address; allowed are files on this machine.")
        named = {"last": self.last, "best": self.best, "previous": self.previous}
        path = named.get(name, Path(name))
        if path.is_dir():
            raise UserError(f"--ckpt_path {name}: {path} is a folder. Give a .ckpt file in it.")
        if not path.is_file():
            raise UserError(f"--ckpt_path {name}: there is no {path}. {self._there()}")
        return path

    def _there(self) -> str:
        names = sorted(path.name for path in self.checkpoints.glob("*.ckpt"))
        return f"In {self.checkpoints}: {', '.join(names) or 'nothing'}."

    def best_or_last(self) -> Path:
        """Return best.ckpt, or last.ckpt if no validation has been run.

        Raises:
            UserError: if there is neither.
        """
        found = next((path for path in (self.best, self.last) if path.is_file()), None)
        if found is None:
            raise UserError(f"the run has neither best.ckpt nor last.ckpt. {self._there()}")
        return found

    @property
    def begun(self) -> bool:
        """Whether a checkpoint lies there that the run could go on from."""
        return self.last.is_file() or self.previous.is_file()

    @property
    def run_id(self) -> str | None:
        """The identity of the run, which its checkpoints carry too; None if it has none."""
        return self.read_record().get("wandb_id")

    def read_record(self) -> dict[str, Any]:
        """Return run.json, or an empty dictionary if it is not there.

        Raises:
            UserError: if it is damaged.
        """
        if not self.record.is_file():
            return {}
        try:
            found = json.loads(self.record.read_text("utf-8"))
        except ValueError as error:
            raise UserError(f"{self.record} is damaged: {error}. Bring it back.") from error
        if not isinstance(found, dict):
            raise UserError(f"{self.record} is damaged: it holds no record. Bring it back.")
        return found


def new_run_path(config: Path | None, now: datetime | None = None) -> Path:
    """Return `runs/<stem of the config>/<UTC time>`, with -2, -3 if the name is taken."""
    stem = config.stem if config else "run"
    time = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H-%M-%S")
    path, number = Path("runs") / stem / time, 1
    while path.exists():
        number += 1
        path = Path("runs") / stem / f"{time}-{number}"
    return path


def shown_path(path: str) -> str:
    """Return a path relative to the data as it is, and of any other the name alone."""
    inside = not PurePosixPath(path).is_absolute() and not PureWindowsPath(path).drive
    return path if inside else PureWindowsPath(path).name


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON; see `write_text`."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str, errors: str = "strict", by_many: bool = False) -> None:
    """Write a text file; see `write_blocks`."""
    write_blocks(path, [text.encode("utf-8", errors)], by_many)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; see `write_blocks`."""
    write_blocks(path, [content])


def write_blocks(path: Path, blocks: Iterable[bytes], by_many: bool = False) -> None:
    """Write a file through a temporary one, so that no half file is ever seen.

    Args:
        path: The file.
        blocks: Its content, in parts.
        by_many: Whether several processes may write it at once: each then has a temporary file of
            its own. Else the next write takes the place of what a kill has left.

    Raises:
        OSError: if it can't be written; the old file is then as it was.
    """
    own = f".{os.getpid()}" if by_many else ""
    part = path.with_name(f"{path.name}{own}.tmp")
    try:
        with part.open("wb") as file:
            file.writelines(blocks)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):  # lest it hide why the file can't be written
            part.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Return the versions that a run depends on."""
    from src import __version__

    return {
        "waggle": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def git_commit() -> str | None:
    """Return the commit of the code, with `-dirty` if the tree was changed, or None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    folder = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return None
    return done.stdout.strip() or None
