"""The logic of `.ci/setup.py`: when is an environment made, mended or left alone?

No package is installed: a fake `subprocess.run` plays venv and pip.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers import ROOT


def load_setup():
    spec = importlib.util.spec_from_file_location("waggle_setup", ROOT / ".ci" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


setup = load_setup()
HERE = "3.11"  # what the fake interpreters say


class FakeMachine:
    """Stands in for `subprocess.run`: a venv is a few files, an install is a dist-info folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.version = HERE
        self.at_install = lambda: 0  # the exit code of pip, or an exception
        self.versions: dict[str, str] = {}  # of interpreters by name, where they differ

    def __call__(self, command, **options):
        if command[1] == "-c":
            return self.answer_version(Path(command[0]))
        kind = "venv" if command[1:3] == ["-m", "venv"] else "pip"
        self.calls.append(kind if kind == "venv" or "-e" not in command else "install")
        code = 0
        if kind == "venv":
            self.make_venv(clear="--clear" in command)
        elif "-e" in command:
            code = self.at_install()
            (self.packages / "torch-2.13.0.dist-info").mkdir(exist_ok=True)
        return SimpleNamespace(returncode=code)

    def answer_version(self, python: Path):
        if python.is_relative_to(self.root) and not python.is_file():
            raise FileNotFoundError(python)
        return SimpleNamespace(stdout=self.versions.get(python.name, self.version) + "\n")

    @property
    def packages(self) -> Path:
        return self.root / ".venv" / "lib" / "python3.11" / "site-packages"

    def make_venv(self, clear: bool) -> None:
        if clear:
            shutil.rmtree(self.root / ".venv", ignore_errors=True)
        self.packages.mkdir(parents=True, exist_ok=True)
        python = setup.Environment(self.root).python
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text("an interpreter")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    root = tmp_path / "a folder with spaces"
    (root / ".ci").mkdir(parents=True)
    (root / "pyproject.toml").write_text("one")
    (root / "constraints.txt").write_text("two")
    fake = FakeMachine(root)
    monkeypatch.delenv("PYTHON", raising=False)
    monkeypatch.setattr(setup.subprocess, "run", fake)
    monkeypatch.setattr(setup.shutil, "which", lambda name: str(Path("/somewhere") / name))
    return fake


@pytest.fixture
def ready(machine):
    assert setup.main(machine.root) == 0
    machine.calls.clear()
    return machine


def stamp_of(root: Path) -> Path:
    return root / ".venv" / "waggle-stamp.json"


MADE_ANEW = ["venv", "pip", "install"]
MENDED = ["pip", "install"]


def test_a_fresh_checkout_gets_everything_and_the_stamp_comes_last(machine):
    machine.at_install = lambda: stamp_of(machine.root).exists()  # a stamp already: pip "fails"
    assert setup.main(machine.root) == 0
    assert machine.calls == MADE_ANEW
    stamp = json.loads(stamp_of(machine.root).read_text())
    assert stamp["installed"] == ["torch-2.13.0.dist-info"]
    assert stamp["key"]["folder"] == str(machine.root)


def test_an_environment_in_order_is_left_alone(ready):
    assert setup.main(ready.root) == 0
    assert ready.calls == []


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_file_is_mended_by_pip_alone(ready, name, capsys):
    (ready.root / name).write_text("three")
    assert setup.main(ready.root) == 0
    assert ready.calls == MENDED
    assert "pyproject.toml or constraints.txt changed" in capsys.readouterr().out
    assert setup.main(ready.root) == 0
    assert ready.calls == MENDED


def test_text_moved_from_one_file_to_the_other_is_a_change(ready):
    (ready.root / "pyproject.toml").write_text("onet")
    (ready.root / "constraints.txt").write_text("wo")
    assert setup.main(ready.root) == 0
    assert ready.calls == MENDED


def test_a_package_that_is_gone_is_put_back(ready, capsys):
    (ready.packages / "torch-2.13.0.dist-info").rename(ready.packages / "torch-2.9.0.dist-info")
    assert setup.main(ready.root) == 0
    assert ready.calls == MENDED
    assert "torch-2.13.0.dist-info first" in capsys.readouterr().out


def test_a_package_that_the_user_added_stays(ready):
    (ready.packages / "ipython-9.0.dist-info").mkdir()
    assert setup.main(ready.root) == 0
    assert ready.calls == []


def test_a_moved_folder_is_made_anew(ready, capsys):
    moved = ready.root.with_name("elsewhere")
    ready.root.rename(moved)
    ready.root = moved
    assert setup.main(moved) == 0
    assert ready.calls == MADE_ANEW
    assert "made in another folder" in capsys.readouterr().out


def test_an_interpreter_that_is_gone_is_replaced(ready, capsys):
    setup.Environment(ready.root).python.unlink()
    assert setup.main(ready.root) == 0
    assert ready.calls == MADE_ANEW
    assert "doesn't run" in capsys.readouterr().out


def test_another_minor_version_under_the_same_name_is_made_anew(ready):
    ready.version = "3.12"
    assert setup.main(ready.root) == 0
    assert ready.calls == MADE_ANEW


def test_a_python_that_was_asked_for_replaces_another(ready, monkeypatch):
    ready.versions["python3.12"] = "3.12"
    monkeypatch.setenv("PYTHON", "python3.12")
    assert setup.main(ready.root) == 0
    assert ready.calls == MADE_ANEW


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"key": {}, "installed": []}'])
def test_a_stamp_of_noise_counts_for_nothing(ready, content):
    stamp_of(ready.root).write_text(content)
    assert setup.main(ready.root) == 0
    assert ready.calls == MADE_ANEW


def stop():
    raise KeyboardInterrupt


@pytest.mark.parametrize("changed", [False, True], ids=["fresh", "mending"])
def test_an_interrupted_install_leaves_no_stamp_and_is_made_anew(machine, changed):
    if changed:
        assert setup.main(machine.root) == 0
        (machine.root / "constraints.txt").write_text("three")
    machine.at_install = stop
    assert setup.main(machine.root) == 130
    assert not stamp_of(machine.root).exists()
    machine.at_install = lambda: 0
    machine.calls.clear()
    assert setup.main(machine.root) == 0
    assert machine.calls == MADE_ANEW


def test_a_fresh_install_that_fails_leaves_no_stamp(machine):
    machine.at_install = lambda: 1
    assert setup.main(machine.root) == 2
    assert not stamp_of(machine.root).exists()


def test_a_mending_that_fails_is_tried_again_on_the_same_environment(ready):
    (ready.root / "pyproject.toml").write_text("a typo")
    ready.at_install = lambda: 1
    assert setup.main(ready.root) == 2
    assert setup.main(ready.root) == 2
    ready.at_install = lambda: 0
    (ready.root / "pyproject.toml").write_text("no typo")
    assert setup.main(ready.root) == 0
    assert ready.calls == MENDED * 3


def test_a_failing_pip_is_named_with_its_command(machine, capsys):
    machine.at_install = lambda: 7
    assert setup.main(machine.root) == 2
    message = capsys.readouterr().err
    assert re.search(r"pip failed with exit code 7.*\n.*--no-build-isolation", message)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("3.10", False), ("3.11", True), ("3.13", True), ("3.14", False), ("2.7", False)],
)
def test_the_range_of_versions(version, expected):
    assert setup.in_range(version) is expected


@pytest.mark.parametrize("nothing", [None, "", "3", "pyenv: command not found"])
def test_what_is_no_version_is_not_in_range(nothing):
    assert not setup.in_range(nothing)


def test_the_range_is_the_one_in_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (low, high) = (f"{major}.{minor}" for major, minor in (setup.OLDEST, setup.TOO_NEW))
    assert project["requires-python"] == f">={low},<{high}"


def test_python3_is_passed_over_where_it_is_too_new(machine):
    machine.version = "3.14"
    machine.versions["python3.12"] = "3.12"
    assert setup.find_python() == "/somewhere/python3.12"


def test_no_python_in_range_names_what_was_found_and_leaves_the_old_environment(ready, capsys):
    (ready.root / "constraints.txt").write_text("three")
    setup.Environment(ready.root).python.unlink()
    ready.version = "3.14"
    assert setup.main(ready.root) == 2
    message = capsys.readouterr().err
    assert re.search(r"needs Python 3\.11 to 3\.13\. Found: .*python3 is 3\.14", message)
    assert "make setup PYTHON=" in message
    assert ready.calls == []


def test_a_python_that_was_asked_for_is_never_replaced_by_another(machine, monkeypatch, capsys):
    machine.versions["python3.9"] = "3.9"
    monkeypatch.setenv("PYTHON", "python3.9")
    assert setup.main(machine.root) == 2
    assert "python3.9 is 3.9" in capsys.readouterr().err
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    assert setup.main(machine.root) == 2
    assert "PYTHON=python3.9 is no interpreter that runs" in capsys.readouterr().err
    assert machine.calls == []


# From here on without the fake.


def test_every_version_in_constraints_is_exact():
    text = (ROOT / "constraints.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.]*", line)]
    assert not wrong
    assert "torch==2.13.0" in lines


def test_every_direct_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = project["dependencies"] + [line for lines in extras.values() for line in lines]
    names = {normal(re.match(r"[\w-]+", line).group()) for line in asked} - {"waggle"}
    text = (ROOT / "constraints.txt").read_text()
    pinned = {normal(name) for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
    assert names <= pinned


def test_all_holds_every_extra_but_dev_and_the_one_that_may_break_others():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"]) - {"all", "dev", "pretrained"}
    (line,) = project["optional-dependencies"]["all"]
    assert set(re.fullmatch(r"waggle\[(.*)\]", line).group(1).split(",")) == extras


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_a_second_setup_waits_for_the_first(tmp_path):
    pytest.importorskip("fcntl", reason="not on this system: fcntl")
    (tmp_path / ".ci").mkdir()
    program = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import setup\n"
        "with setup.alone(pathlib.Path(sys.argv[2])): print('in', flush=True)"
    )
    command = [sys.executable, "-c", program, str(ROOT / ".ci"), str(tmp_path)]
    with setup.alone(tmp_path):
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert "waiting" in other.stdout.readline()
        time.sleep(0.2)
        assert other.poll() is None
    assert other.stdout.readline() == "in\n"
    other.stdout.close()
    assert other.wait(10) == 0


@pytest.mark.skipif(os.name == "nt", reason="not on this system: make")
def test_make_help_names_every_target():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split()
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"^make ([\w-]+)", done.stdout, re.MULTILINE) == targets
