"""Standard error of a server, whether anybody reads it or not."""

import subprocess
import sys

from tests.helpers import ROOT


def run(code: str, reads: bool) -> tuple[int, str]:
    """Return exit code and standard error of a program; where nobody reads it, its pipe is full."""
    words = [sys.executable, "-c", f"from src.unread import tell_beside; tell_beside()\n{code}"]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        try:
            if reads:
                return started.wait(60), started.communicate()[1]
            return started.wait(60), ""
        finally:
            started.kill()


def test_an_unread_pipe_for_errors_stops_nothing() -> None:
    """Neither the log, nor what C libraries write, nor the last word."""
    code = (
        "import logging, os, sys; logging.basicConfig(force=True)\n"
        "for _ in range(3000): logging.error('x' * 1000)\n"
        "for _ in range(300): os.write(2, b'x' * 1000)\n"
        "print('stopped', file=sys.stderr); sys.exit(7)"
    )
    assert run(code, reads=False) == (7, "")


def test_what_was_told_arrives_before_the_end() -> None:
    code = "import sys; sys.exit('the \\ud800 last word')"
    assert run(code, reads=True) == (1, "the \\ud800 last word\n")
