"""Predicts pictures without torch: `python -m src.predict BUNDLE INPUT... [--out FILE]`."""

import argparse
import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from src.bundle import MODELS, MOST_THREADS, Bundle
from src.cores import usable_cores
from src.errors import RunFailureError, UserError
from src.failures import Parser, end_with_message
from src.inputs import listed, require_regular
from src.preprocess import BadImageError, Pixels
from src.rows import csv_text

PROGRAM = "python -m src.predict"
_AHEAD = 2  # batches of each thread that may be under way: bounds the memory

UNREADABLE = (OSError, ValueError, MemoryError)  # of one file; ValueError: a name with a NUL byte

Row = tuple[str, str, list[float], str]  # path, class, probabilities, error; of a bad file "", []


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 if files could not be read, 2 for the user's mistakes."""
    with end_with_message() as outcome:
        options = parser().parse_args(args)
        _require_place(options.out)
        bundle = Bundle(options.bundle, options.variant, threads=1)
        written = (options.out, _part(options.out)) if options.out else ()
        paths = listed(options.inputs, written=written)
        threads = options.threads or usable_cores()
        rows = tqdm(
            predictions(bundle, paths, options.batch_size, threads),
            total=len(paths),
            unit="picture",
            disable=None if options.out else True,
        )
        bad = _write(options.out, _layout(options), bundle.classes, rows)
        if bad:
            raise RunFailureError(
                f"{bad:,} of {len(paths):,} files could not be read; the column error says why."
            )
    return outcome.code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Name pictures by an exported model: path, predicted_class, prob_CLASS..., "
        "error; a row for each file, in the order given.",
        epilog="Exit code: 0 all were read, 1 some could not be, 2 a mistake.",
    )
    add = made.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="folder that src.export has made")
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="files, folders, patterns such as '**/*.jpg', a CSV with a column path, or - for a "
        "list on standard input",
    )
    add("--out", type=Path, metavar="FILE", help="the table (default: standard output)")
    add(
        "--format",
        choices=("csv", "jsonl"),
        help="CSV, or a JSON object in each line (default: by the suffix of --out, else csv)",
    )
    add("--variant", choices=tuple(MODELS), default="fp32", help="model (default: %(default)s)")
    add("--batch_size", type=_count, default=16, metavar="N", help="pictures of a batch "
        "(default: %(default)s)")  # fmt: skip
    add("--threads", type=_threads, metavar="N", help="that work at once (default: a core each)")
    return made


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _threads(text: str) -> int:
    if _count(text) > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{text} are too many; allowed is 1 to {MOST_THREADS}")
    return int(text)


def _require_place(out: Path | None) -> None:
    """Raise UserError if the table can't be written, before any work."""
    if out is None:
        return
    if out.is_dir():
        raise UserError(f"--out {out} is a folder. Give a file in it, such as {out / 'p.csv'}.")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}. Make it, or give another.")
    if not os.access(out.absolute().parent, os.W_OK):
        raise UserError(f"--out {out}: nothing can be written into {out.parent}. Give another.")


def predictions(
    bundle: Bundle, paths: Sequence[str], batch_size: int, threads: int
) -> Iterator[Row]:
    """Yield a row for each file, in their order; memory does not grow with their number.

    Each thread decodes a batch and sends it through the model, so none waits for another.

    Args:
        bundle: Opened with one thread of its own.
        paths: Of the files.
        batch_size: Files of a batch.
        threads: That work at once.
    """
    starts = iter(range(0, len(paths), batch_size))
    under_way: deque[Future[list[Row]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                while len(under_way) < _AHEAD * threads and (at := next(starts, None)) is not None:
                    under_way.append(pool.submit(_batch, bundle, paths[at : at + batch_size]))
                if not under_way:
                    return
                yield from under_way.popleft().result()
        finally:
            for waiting in under_way:
                waiting.cancel()


def _batch(bundle: Bundle, paths: Sequence[str]) -> list[Row]:
    pixels, errors = [], {}
    for number, path in enumerate(paths):
        try:
            pixels.append(_pixels(bundle, path))
        except UNREADABLE as error:
            errors[number] = _reason(error)
    found = iter(()) if not pixels else _named(bundle, np.stack(pixels))
    return [
        (path, "", [], errors[number]) if number in errors else (path, *next(found), "")
        for number, path in enumerate(paths)
    ]


def _pixels(bundle: Bundle, path: str) -> Pixels:
    if not path:
        raise ValueError("the row names no file")
    require_regular(path)
    return bundle.pixels(path)


def _reason(error: Exception) -> str:
    if isinstance(error, BadImageError):
        return error.reason
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _named(bundle: Bundle, pixels: Pixels) -> Iterator[tuple[str, list[float]]]:
    shares = bundle.probabilities(pixels)
    winners = bundle.predicted(shares)
    names = (bundle.classes[winner] for winner in winners)
    return zip(names, shares.astype(np.float64).tolist(), strict=True)


Layout = Callable[[Row | None, Sequence[str]], str]  # a row, or None for the head; and the classes


def _layout(options: argparse.Namespace) -> Layout:
    ends = {".jsonl": "jsonl", ".ndjson": "jsonl"}
    by_name = ends.get(options.out.suffix.lower(), "csv") if options.out else "csv"
    return _json_line if (options.format or by_name) == "jsonl" else _csv_line


def _csv_line(row: Row | None, classes: Sequence[str]) -> str:
    if row is None:
        cells = ["path", "predicted_class", *(f"prob_{name}" for name in classes), "error"]
    else:
        path, name, shares, error = row
        numbers = [f"{share:.6f}" for share in shares] or [""] * len(classes)
        cells = [path, name, *numbers, error]
    return csv_text([cells])


def _json_line(row: Row | None, classes: Sequence[str]) -> str:
    if row is None:
        return ""
    path, name, shares, error = row
    content = {
        "path": path,
        "predicted_class": name or None,
        "probabilities": dict(zip(classes, shares, strict=True)) if shares else None,
        "error": error or None,
    }
    return json.dumps(content) + "\n"


def _write(out: Path | None, layout: Layout, classes: Sequence[str], rows: Iterable[Row]) -> int:
    """Write the rows as they come; return how many files could not be read.

    A file takes its name when it is whole; until then it ends with .part.
    """
    if out is None:
        sys.stdout.reconfigure(  # type: ignore[union-attr]
            encoding="utf-8", errors="surrogateescape", newline=""
        )
        bad = 0
        with _closed_early():
            bad = _write_to(sys.stdout, layout, classes, rows)
        return bad
    part = _part(out)
    with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        bad = _write_to(file, layout, classes, rows)
    if part != out:
        part.replace(out.resolve())
    return bad


def _part(out: Path) -> Path:
    """Return what is written; a device or a pipe is written itself, a link's target replaced."""
    if out.exists() and not out.is_file():
        return out
    target = out.resolve()
    return target.with_name(f"{target.name}.part")


@contextlib.contextmanager
def _closed_early() -> Iterator[None]:
    """End in silence where whoever reads standard output has seen enough, such as `head`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_to(file: TextIO, layout: Layout, classes: Sequence[str], rows: Iterable[Row]) -> int:
    file.write(layout(None, classes))
    bad = 0
    for row in rows:
        file.write(layout(row, classes))
        bad += bool(row[3])
    return bad


if __name__ == "__main__":
    sys.exit(main())
