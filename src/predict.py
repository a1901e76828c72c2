"""Predicts pictures without torch: `python -m src.predict BUNDLE INPUT... [--out FILE]`."""

import argparse
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from src import predicted
from src.bundle import MODELS, MOST_THREADS, Bundle
from src.cores import usable_cores
from src.errors import RunFailureError
from src.failures import Parser, end_with_message
from src.inputs import listed, require_regular
from src.predicted import Row
from src.preprocess import BadImageError, Pixels

PROGRAM = "python -m src.predict"
_AHEAD = 2  # batches of each thread that may be under way: bounds the memory

UNREADABLE = (OSError, ValueError, MemoryError)  # of one file; ValueError: a name with a NUL byte


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 if files could not be read, 2 for the user's mistakes."""
    with end_with_message() as outcome:
        options = parser().parse_args(args)
        predicted.require_place(options.out)
        bundle = Bundle(options.bundle, options.variant, threads=1)
        written = (options.out, predicted.part_of(options.out)) if options.out else ()
        paths = listed(options.inputs, written=written)
        threads = options.threads or usable_cores()
        rows = tqdm(
            predictions(bundle, paths, options.batch_size, threads),
            total=len(paths),
            unit="picture",
            disable=None if options.out and sys.stderr else True,
        )
        layout = predicted.layout_of(options.format, options.out)
        bad = predicted.write(options.out, layout, bundle.classes, rows)
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


if __name__ == "__main__":
    sys.exit(main())
