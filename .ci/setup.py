"""Make or mend `.venv`: the project with every extra, exact by constraints.txt.

    python .ci/setup.py

An environment that is in order costs a fraction of a second; anything else is mended. A stamp,
written last, tells the two apart: it holds what the environment was made from and what was
installed. PYTHON=... names another interpreter to make it with.

Needs nothing but the standard library, and starts on Python 3.7 and later, so that it can look
for a newer one: keep the syntax that old.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST, TOO_NEW = (3, 11), (3, 14)  # as requires-python in pyproject.toml; a test compares them
ROOT = Path(__file__).resolve().parent.parent
NAMES = ["python3", "python"] + [f"python3.{n}" for n in range(TOO_NEW[1] - 1, OLDEST[1] - 1, -1)]
VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


class SetupError(Exception):
    """Something to be shown as one message, without a traceback."""


def say(text: str) -> None:
    """Print one line about what is being done."""
    print(f"setup: {text}", flush=True)


def version_of(python: str | Path) -> str | None:
    """Return `3.11` and so on, or None where there is no interpreter or a broken one."""
    try:
        done = subprocess.run(
            [str(python), "-c", VERSION], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def in_range(version: str | None) -> bool:
    """Tell whether a version such as `3.11` is one that the project allows."""
    if not re.fullmatch(r"\d+\.\d+", version or ""):
        return False
    return OLDEST <= tuple(int(part) for part in version.split(".")) < TOO_NEW


def find_python() -> str:
    """Return an interpreter in range: PYTHON, else this one, else the first on the PATH.

    Raises:
        SetupError: PYTHON, or everything that was found, is outside the range.
    """
    allowed = f"Python 3.{OLDEST[1]} to 3.{TOO_NEW[1] - 1}"
    asked = os.environ.get("PYTHON")
    # Inside an active environment, its interpreter would vanish while it makes itself anew.
    running = getattr(sys, "_base_executable", None) or sys.executable
    names = [asked] if asked else [running, *NAMES]
    found = []
    for name in names:
        path = shutil.which(name)
        version = version_of(path) if path else None
        if in_range(version):
            return str(path)
        if version:
            found.append(f"{path} is {version}")
        elif asked:
            found.append(f"PYTHON={asked} is no interpreter that runs")
    raise SetupError(
        f"Waggle needs {allowed}. Found: {'; '.join(dict.fromkeys(found)) or 'no Python at all'}. "
        f"Install one of them, or name it: make setup PYTHON=/path/to/python3.{TOO_NEW[1] - 1}"
    )


class Environment:
    """The environment in `root/.venv`, and whether it is what the project's files ask for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / ".venv"
        self.stamp = self.home / "waggle-stamp.json"
        self.python = self.home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def key(self, version: str | None) -> dict[str, str | None]:
        """Return what an environment depends on; scripts in it hold the folder's full path."""
        digest = hashlib.sha256()
        for name in ("pyproject.toml", "constraints.txt"):
            digest.update((self.root / name).read_bytes() + b"\0")
        return {"files": digest.hexdigest(), "folder": str(self.root), "python": version}

    def installed(self) -> list[str]:
        """Return the name-version folders that pip leaves, one for each package."""
        places = ("lib/python*/site-packages", "Lib/site-packages")  # the second on Windows
        return sorted(
            path.name for place in places for path in self.home.glob(f"{place}/*.dist-info")
        )

    def fault(self) -> tuple[str, bool] | None:
        """Return what is wrong and whether pip alone can mend it, or None if nothing is."""
        if not self.home.exists():
            return "there is none yet", False
        version = version_of(self.python)
        if version is None:
            return "its interpreter doesn't run", False
        try:
            stamp = json.loads(self.stamp.read_text(encoding="utf-8"))
            was, packages = stamp["key"], set(stamp["installed"])
        except (OSError, ValueError, KeyError, TypeError):
            return "it was never finished", False
        now = self.key(version)
        if was.get("folder") != now["folder"]:
            return "it was made in another folder", False
        asked = os.environ.get("PYTHON")
        wanted = version_of(shutil.which(asked) or asked) if asked else version
        if not was.get("python") == version == wanted:
            return f"it has Python {version}, not {wanted}", False
        if was.get("files") != now["files"]:
            return "pyproject.toml or constraints.txt changed", True
        missing = sorted(packages - set(self.installed()))
        if missing:
            return f"{len(missing)} packages are gone or changed, {missing[0]} first", True
        return None

    def mend(self, why: str, pip_is_enough: bool) -> None:
        """Bring the environment to what the files ask for; the stamp is written last.

        Raises:
            SetupError: No interpreter in range, or venv or pip failed.
        """
        python = None if pip_is_enough else find_python()
        before = self.stamp.read_bytes() if pip_is_enough else b""
        with contextlib.suppress(FileNotFoundError):
            self.stamp.unlink()
        if python is None:
            say(f"mending .venv ({why})")
        else:
            say(f"making .venv with Python {version_of(python)} ({why})")
            say("this can take minutes: torch is 0.2 GB, with the CUDA libraries on Linux 5 GB")
            call([python, "-m", "venv", "--clear", str(self.home)], "the venv module", self.root)
        try:
            self.install()
        except SetupError:
            # Pip has put back what it changed: a typo in pyproject.toml costs no new environment.
            if pip_is_enough:
                self.stamp.write_bytes(before)
            raise
        stamp = {"key": self.key(version_of(self.python)), "installed": self.installed()}
        partial = self.stamp.with_suffix(".partial")
        partial.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
        os.replace(partial, self.stamp)

    def install(self) -> None:
        """Let pip install the project; on a terminal with its bars, else without a word."""
        pip = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check"]
        pip += [] if sys.stdout.isatty() else ["-qq", "--progress-bar", "off"]
        pip += ["-c", "constraints.txt"]
        # The build uses the pinned setuptools: an isolated one would take the newest there is.
        call([*pip, "setuptools"], "pip", self.root)
        call([*pip, "--no-build-isolation", "-e", ".[all,dev]"], "pip", self.root)


def call(command: list[str], what: str, folder: Path) -> None:
    """Run a command with its output shown; SetupError if it fails."""
    done = subprocess.run(command, cwd=folder, check=False)
    if done.returncode:
        raise SetupError(
            f"{what} failed with exit code {done.returncode}, for the reason above; it ran\n  "
            f"{' '.join(command)}\nMend that and run the same again: what was downloaded is kept."
        )


@contextlib.contextmanager
def alone(root: Path):  # type: ignore[no-untyped-def]
    """Wait until no other set-up of this folder runs; on Windows, where fcntl lacks, don't."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder = os.open(root / ".ci", os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("waiting for another set-up of this folder")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def main(root: Path = ROOT) -> int:
    """Make or mend the environment; return the exit code."""
    environment = Environment(root)
    try:
        with alone(root):
            fault = environment.fault()
            if fault:
                environment.mend(*fault)
                say("done")
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("setup: stopped; the next run makes .venv anew", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
