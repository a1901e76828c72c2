"""Every way a command can end badly: one message on standard error and an exit code."""

import argparse
import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from src.errors import RunFailureError, StoppedRun, UserError, stop_signals

_REQUEUE = "SIGUSR1"  # what `sbatch --signal=SIGUSR1@120` sends before the time is up
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BEHIND_SECONDS = 3.0  # more than a launcher takes to end the others when one process has failed
_IN_WORKER = "in DataLoader worker process"
_OURS = re.compile(r"^src\.errors\.\w+: ", re.MULTILINE)
_RAISED = re.compile(r"^[\w.]+(?:Error|Exception|Interrupt): ", re.MULTILINE)


class Parser(argparse.ArgumentParser):
    """A parser of options whose complaints are mistakes of the user's like any other."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of ending the process."""
        raise UserError(f"{message}. See --help.")


@dataclass
class Outcome:
    """The exit code of a command that is over."""

    code: int = 0


@contextmanager
def end_with_message() -> Iterator[Outcome]:
    """Turn whatever ends the block into an exit code; the user's mistakes without a traceback."""
    outcome = Outcome()
    with _signals_end_it():
        try:
            yield outcome
        except StoppedRun as end:
            outcome.code = end.code if isinstance(end.code, int) else 1
            if _is_first():
                print(end.message, file=sys.stderr, flush=True)
                _requeue(end.name)
        except SystemExit as end:  # --help, --print_config
            outcome.code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except Exception as error:
            _let_the_first_speak()
            outcome.code = _tell(error)


def _tell(error: Exception) -> int:
    """Print an error for the user, with a traceback if nobody foresaw it; return its exit code."""
    code, message = explain(error)
    if message is None:
        traceback.print_exception(error)
        message = (
            f"{type(error).__name__}: {error}\nThis is a fault in Waggle or in a class named "
            "in the config; the lines above say where."
        )
    print(f"error: {message}", file=sys.stderr)
    return code


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGUSR1 end the block by StoppedRun, so that it tidies up.

    A training that has begun listens by itself: `src.loop.signals`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise StoppedRun(signal.Signals(number).name)


def _is_first(*variables: str) -> bool:
    """Return whether this is the first of all processes of a run, as launchers count them."""
    names = variables or ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((os.environ[name] == "0" for name in names if name in os.environ), True)


def _let_the_first_speak() -> None:
    """Wait in all processes of a machine but the first: if that one failed too, they are ended."""
    if not _is_first("LOCAL_RANK", "SLURM_LOCALID"):
        time.sleep(_BEHIND_SECONDS)


def _requeue(name: str) -> None:
    """Put a SLURM job into the queue again; `scontrol requeue` is in its manual page."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID")
    if name != _REQUEUE or not job:
        return
    try:
        code = subprocess.run(["scontrol", "requeue", job], check=False).returncode
    except OSError as error:
        print(f"WARNING: job {job} was not queued again: {error}", file=sys.stderr)
        return
    if code:
        print(f"WARNING: scontrol requeue {job} ended with code {code}", file=sys.stderr)


def explain(error: Exception) -> tuple[int, str | None]:
    """Return exit code and message of an error; no message for one that nobody foresaw."""
    text = _without_worker(str(error))
    if isinstance(error, UserError):
        return 2, text
    if isinstance(error, argparse.ArgumentError):
        return 2, error.message
    if isinstance(error, RunFailureError):
        return 1, text
    if any(kind.__name__ == "MisconfigurationException" for kind in type(error).__mro__):
        return 2, text  # Lightning's, by name: commands that go without it must not load it
    cause = _os_cause(error)
    if cause is not None:
        return _os_error(cause)
    if "which is not available. Pass in or modify your" in text:  # EarlyStopping's monitor
        return 2, text
    if isinstance(error, MemoryError) or _out_of_memory(text):
        return 1, (
            f"there is not enough memory: {_first_line(text)}. Lower --data.batch_size, "
            "--data.image_size or --data.num_workers (of src.predict: --batch_size or --threads)."
        )
    if "PytorchStreamWriter failed" in text:  # how torch reports a failed write
        return 1, f"a checkpoint could not be written, the disk may be full: {_first_line(text)}"
    if "DataLoader worker" in text and "killed" in text:
        return 1, f"{_first_line(text)} Memory may have run out: lower --data.num_workers."
    return 1, None


def _os_cause(error: BaseException | None) -> OSError | None:
    """Return the error itself, or the full disk that torch hides behind an error of its own."""
    first = error
    while error is not None:
        if isinstance(error, OSError) and (error is first or error.errno in _FULL):
            return error
        error = error.__cause__ or error.__context__
    return None


def _os_error(error: OSError) -> tuple[int, str | None]:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _FULL:
        return 1, (
            f"the disk is full{where}: {error.strerror}. What was written before is whole; free "
            "some space and try again (a training: with --ckpt_path auto)."
        )
    named = (PermissionError, FileNotFoundError, NotADirectoryError, FileExistsError)
    if isinstance(error, named) or error.errno in (errno.ENAMETOOLONG, errno.EROFS):
        return 2, f"{error.strerror}{where}. Give a path that can be used."
    return 1, None


def place(error: Exception) -> str:
    """Return the function, file and line that raised an error."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.name} in {Path(frame.filename).name}, line {frame.lineno}"


def users_mistake(error: BaseException | None) -> UserError | None:
    """Return the mistake of the user's that a library has wrapped into errors of its own."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def raised_in(error: BaseException, package: str) -> bool:
    """Return whether code of a package raised an error."""
    return package in Path(traceback.extract_tb(error.__traceback__)[-1].filename).parts


def _without_worker(text: str) -> str:
    """Return the message alone of an error that a worker process has wrapped in its traceback."""
    if _IN_WORKER not in text:
        return text
    pattern = _OURS if _OURS.search(text) else _RAISED
    return pattern.split(text)[-1].strip()


def _out_of_memory(text: str) -> bool:
    """Return whether torch says so; the last is the memory that processes share."""
    signs = ("out of memory", "can't allocate memory", "unable to write to file </torch")
    return any(sign in text for sign in signs)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "the system gave none"
