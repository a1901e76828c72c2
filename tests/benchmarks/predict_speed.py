"""How fast `src.predict` is beside `src.train predict`, on the same photographs.

    python -m tests.benchmarks.predict_speed --root DATA RUN

Both are started anew each time, in turns, with nothing decoded before; in steady state the time of
pictures 1,000 to 5,000 is that of 5,000 less that of 1,000. DATA's pictures are copied until there
are as many, each copy with another comment, so that no cache takes one for another.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

FEW, MANY = 1000, 5000


def main() -> None:
    """Print seconds and ratios."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--root", type=Path, required=True)
    made.add_argument("run", type=Path)
    made.add_argument("--repeats", type=int, default=3)
    options = made.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(options, Path(scratch))


def measure(options: argparse.Namespace, scratch: Path) -> None:
    """Time both programs in turns, and print what was found."""
    run, bundle = scratch / "run", scratch / "bundle"
    shutil.copytree(options.run, run)
    subprocess.run([sys.executable, "-m", "src.export", run, "--out", bundle], check=True)
    for number in (FEW, MANY):
        spread(options.root, scratch / str(number), number)
    taken: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.repeats):
        for number in (FEW, MANY):
            pictures = scratch / str(number)
            train = ["src.train", "predict", "--run_dir", run, "--data.root", pictures]
            light = ["src.predict", bundle, pictures, "--out", scratch / "p.csv"]
            for name, words in (("train", train), ("light", light)):
                seconds = timed([*map(str, words)], scratch / "cache")
                taken.setdefault((name, number), []).append(seconds)
    report(taken)


def spread(root: Path, folder: Path, number: int) -> None:
    """Write so many different files of DATA's photographs."""
    known = [path.read_bytes() for path in sorted(root.rglob("*.jpg"))[:number]]
    jpegs = [data for data in known if data.startswith(b"\xff\xd8")]  # a suffix may be wrong
    folder.mkdir()
    for k in range(number):
        data = jpegs[k % len(jpegs)]
        comment = b"\xff\xfe\x00\x0a%08d" % k  # a segment that decoders pass over
        (folder / f"{k:05d}.jpg").write_bytes(data[:2] + comment + data[2:])


def timed(words: list[str], cache: Path) -> float:
    """Return the seconds from the start of a command to its end, with an empty cache."""
    shutil.rmtree(cache, ignore_errors=True)
    settings = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *words], env=settings, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return time.perf_counter() - start


def report(taken: dict[tuple[str, int], list[float]]) -> None:
    """Print medians, and the ratios of pairs of one turn."""
    for (name, number), seconds in taken.items():
        print(f"{name}, {number} pictures: {median(seconds):.2f} s of {seconds}")
    pairs = zip(taken["train", FEW], taken["light", FEW], strict=True)
    print(f"start to end, {FEW}: {median(a / b for a, b in pairs):.2f} times as many a second")
    steady = {
        name: [b - a for a, b in zip(taken[name, FEW], taken[name, MANY], strict=True)]
        for name in ("train", "light")
    }
    ratios = [a / b for a, b in zip(steady["train"], steady["light"], strict=True)]
    for name, seconds in steady.items():
        print(f"{name}, steady: {(MANY - FEW) / median(seconds):.0f} pictures a second")
    print(f"steady state: {median(ratios):.2f} times as many a second, of {ratios}")


if __name__ == "__main__":
    main()
