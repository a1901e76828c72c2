"""`.ci/known_faults.py`: what `make lint` says of what pip-audit found, or could not look up.

A fake pip-audit plays what it answers.
"""

import json
import runpy
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers import ROOT

SOUND = {"name": "a", "version": "1", "vulns": []}
FAULTY = {"name": "b", "version": "2", "vulns": [{"id": "X-1", "fix_versions": ["3", "4"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


def told(patch: pytest.MonkeyPatch, out: str, err: str = "") -> int:
    answer = SimpleNamespace(stdout=out, stderr=err, returncode=1)
    patch.setattr(subprocess, "run", lambda *_, **__: answer)
    main: Any = runpy.run_path(str(ROOT / ".ci/known_faults.py"))["main"]
    code: int = main()
    return code


@pytest.mark.parametrize(
    ("packages", "code", "says"),
    [
        ([SOUND, SKIPPED], 0, "1 of 2 packages were looked up"),
        ([SOUND, FAULTY], 1, "b 2: X-1, mended in 3, 4"),
        ([SKIPPED], 0, "the list can't be reached from here"),
    ],
)
def test_what_it_found(
    packages: list[dict[str, Any]],
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert told(monkeypatch, json.dumps({"dependencies": packages})) == code
    assert says in capsys.readouterr().out


def test_no_way_to_the_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(monkeypatch, "", "requests.exceptions.ConnectionError: no route") == 0
    assert "the list can't be reached" in capsys.readouterr().out


def test_its_own_failure_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(monkeypatch, "", "constraints.txt: no such file") == 1
    assert "pip-audit ended with 1:\nconstraints.txt: no such file" in capsys.readouterr().err
