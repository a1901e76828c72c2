"""What the Dockerfiles copy, install and start, tried without a container."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.bundles import write_bundle
from tests.helpers import ROOT, require_module
from tests.server import serving

FILES = ("Dockerfile", "serve.Dockerfile")


def steps(name: str) -> list[tuple[str, str]]:
    """Return (instruction, the rest) of a Dockerfile, continued lines joined."""
    lines = [x for x in (ROOT / name).read_text("utf-8").splitlines() if not x.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(a, b) for a, _, b in (line.partition(" ") for line in joined.splitlines()) if a]


def rest_of(name: str, instruction: str) -> list[str]:
    return [rest for found, rest in steps(name) if found == instruction]


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_is_there_and_not_ignored(name: str) -> None:
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for rest in rest_of(name, "COPY"):
        *sources, _ = shlex.split(rest)
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source in kept


@pytest.mark.parametrize("name", FILES)
def test_it_does_not_run_as_root(name: str) -> None:
    assert rest_of(name, "USER") == ["1000"]
    assert "--uid 1000" in " ".join(rest_of(name, "RUN"))


@pytest.mark.parametrize("name", FILES)
def test_its_shell_commands_are_sound(name: str) -> None:
    for rest in rest_of(name, "RUN"):
        checked = subprocess.run(["bash", "-n", "-c", rest], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr


def test_its_python_is_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    bases = [*rest_of("serve.Dockerfile", "FROM"), rest_of("Dockerfile", "ARG")[0]]
    assert all(re.search(r"python:3\.1[123]-slim", base) for base in bases)


def test_the_training_command_starts() -> None:
    (words,) = (json.loads(rest) for rest in rest_of("Dockerfile", "CMD"))
    ended = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, timeout=120)
    assert ended.returncode == 0
    assert b"--config" in ended.stdout


def installed_for_serving() -> set[str]:
    """Return the distributions that serve.Dockerfile installs, and what they need."""
    command = next(rest for rest in rest_of("serve.Dockerfile", "RUN") if "pip install" in rest)
    words = shlex.split(command.partition("pip install")[2].partition("&&")[0])
    names = [word for word in words if not word.startswith("-") and word != "constraints.txt"]
    found: set[str] = set()
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name not in found:
            found.add(name)
            needed = [Requirement(line) for line in metadata.requires(name) or ()]
            here = (one for one in needed if not one.marker or one.marker.evaluate({"extra": ""}))
            names += [one.name for one in here]
    return found


def test_what_it_installs_is_enough_to_serve_and_predict() -> None:
    """The modules that are loaded belong to these distributions, and none of them trains."""
    for name in ("fastapi", "uvicorn", "python_multipart", "onnxruntime"):
        require_module(name)
    code = (
        "import json, sys, src.serve, src.predict, src.api, src.bundle, onnxruntime, uvicorn, "
        "python_multipart; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    owners = metadata.packages_distributions()
    allowed = installed_for_serving()
    assert "torch" not in allowed
    foreign = {
        module: owners[module]
        for module in json.loads(ended.stdout)
        if module in owners
        and module not in ("src", "callbacks")
        and not {re.sub(r"[-_.]+", "-", name).lower() for name in owners[module]} & allowed
    }
    # setuptools' hook is loaded at every start; anyio takes sniffio where it happens to be.
    assert set(foreign) <= {"_distutils_hack", "sniffio"}, foreign


def test_the_server_command_is_one() -> None:
    from src.serve import parser

    (words,) = (json.loads(rest) for rest in rest_of("serve.Dockerfile", "CMD"))
    assert words[:3] == ["python", "-m", "src.serve"]
    options = parser().parse_args(words[3:])
    assert (options.host, options.port, str(options.bundle)) == ("0.0.0.0", 8000, "/bundle")


def test_the_health_check_asks_the_server(tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime", "fastapi", "uvicorn", "python_multipart"):
        require_module(name)
    bundle = write_bundle(tmp_path / "b", ["blue", "red"], [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    (rest,) = rest_of("serve.Dockerfile", "HEALTHCHECK")
    words = json.loads(rest[rest.index("[") :])
    assert words[:2] == ["python", "-c"]
    assert "http://127.0.0.1:8000/health" in words[2]
    with serving(bundle) as server:
        for port, code in ((server.port, 0), (1, 1)):  # where nobody answers
            command = [sys.executable, "-c", words[2].replace(":8000", f":{port}")]
            assert subprocess.run(command, capture_output=True, timeout=60).returncode == code
