"""The peers' environments: one for each list of pins beside this file, made when it is missing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
_LIST = (
    "import importlib.metadata as m, json; "
    "print(json.dumps({d.name: d.version for d in m.distributions()}))"
)


class PeerMissingError(Exception):
    """A peer cannot be measured here; the message is the reason, for the table."""


def default_home() -> Path:
    """Return `$XDG_CACHE_HOME/waggle-peers`, or the same below `~/.cache`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "waggle-peers"


def prepare(name: str, home: Path, here: Path = HERE) -> Path:
    """Return the interpreter of a peer's environment, which holds what `name`.txt pins.

    Raises:
        PeerMissingError: it cannot be made.
    """
    pins = here / f"{name}.txt"
    folder = home / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.is_file():
        print(f"{name}: making its environment", flush=True)
        _run([sys.executable, "-m", "venv", str(folder)])
    if missing(read_pins(pins), installed(python)):
        print(f"{name}: installing what {pins.name} names", flush=True)
        _run([str(python), "-m", "pip", "install", "--requirement", str(pins)])
    if lacking := missing(read_pins(pins), installed(python)):
        raise PeerMissingError(f"its environment lacks {', '.join(lacking)}")
    return python


def read_pins(path: Path) -> dict[str, str]:
    """Return the version that is asked for of every package."""
    lines = [line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines()]
    pairs = [line.split("==") for line in lines if line]
    return {_plain(name): version for name, version in pairs}


def missing(pins: dict[str, str], there: dict[str, str]) -> list[str]:
    """Return the pins that are not met; `+cpu` and the like behind a version make no odds."""
    return [
        f"{name}=={version}"
        for name, version in pins.items()
        if there.get(name, "").partition("+")[0] != version
    ]


def installed(python: Path) -> dict[str, str]:
    """Return the version of every package that an environment holds."""
    found = json.loads(_run([str(python), "-c", _LIST]))
    return {_plain(name): version for name, version in found.items()}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(command: list[str]) -> str:
    """Run a command and return what it prints; raise PeerMissingError with its complaint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PeerMissingError(f"not installed: {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise PeerMissingError(f"not installed: {complaint(done.stdout + done.stderr)}")
    return done.stdout


def complaint(output: str) -> str:
    """Return the line that says best why a command failed: the last ERROR, or the last one.

    Addresses are left out: the line may go into a page that others read.
    """
    lines = [re.sub(r"\w+://\S+", "...", line).strip() for line in output.splitlines()]
    lines = [line for line in lines if line]
    errors = [line for line in lines if re.match(r"ERROR|\w*Error\b", line)]
    return (errors or lines or ["it said nothing"])[-1][:200]
