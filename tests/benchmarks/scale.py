"""How the start of a run grows with the number of pictures: `python -m tests.benchmarks.scale`.

Small pictures, each of its own content, are made once for every size. A process of its own then
lists, checks, splits and caches them, cold and warm, and fits are timed from their start to the end
of their first step, in turn with those of the other sizes, so that a neighbour's load falls on all
of them alike. Nothing is asserted: a time belongs to the machine it was taken on.
"""

import argparse
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from src.bench import machine
from src.errors import UserError
from src.failures import end_with_message
from src.results import peak_memory
from tests.benchmarks.page import page_with
from tests.benchmarks.scale_page import GB, draw, later, section, table
from tests.helpers import ROOT

SIDE, NUM_CLASSES = 12, 10
PAGE, PICTURE = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "pictures" / "scale.png"


def make_pictures(root: Path, count: int) -> None:
    """Fill `root` with PNGs of seeded noise in a folder for each class; keep a whole one."""
    done = root.with_name(f"{root.name}.done")
    if done.exists():
        return
    for label in range(NUM_CLASSES):
        folder = root / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(label, count, NUM_CLASSES):
            (folder / f"{number:07}.png").write_bytes(_png(number))
    done.touch()


def _png(number: int) -> bytes:
    pixels = np.random.Generator(np.random.Philox(number)).integers(
        0, 256, (SIDE, 1 + 3 * SIDE), np.uint8
    )
    pixels[:, 0] = 0  # the row's filter: none
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels.tobytes(), 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def prepare(root: Path, scratch: Path) -> dict[str, float]:
    """Do in this process what a fit does before its Trainer; return seconds and peak bytes."""
    from PIL import Image

    from src.data import audit, datamodule, find

    Image.init()  # imports all formats, which the first picture would wait for
    seconds: dict[str, float] = defaultdict(float)
    _time(datamodule, "list_data", "listing", seconds)
    _time(audit, "scan", "checking", seconds)
    _time(find, "make_index", "splitting", seconds)
    data = datamodule.DataModule(root=str(root), image_size=16, batch_size=32)
    start = time.perf_counter()
    data.prepare("fit")
    before_record = time.perf_counter()
    seconds["cache"] = before_record - start - sum(seconds.values())
    data.index("fit").to_csv(scratch / "samples.csv")
    data.index("fit").fingerprint()
    end = time.perf_counter()
    peak = (peak_memory()["process_gib"] or math.nan) * 2**30
    return {**seconds, "record": end - before_record, "all": end - start, "peak_bytes": peak}


def _time(module: Any, name: str, part: str, seconds: dict[str, float]) -> None:
    real: Callable[..., Any] = getattr(module, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return real(*args, **kwargs)
        finally:
            seconds[part] += time.perf_counter() - start

    setattr(module, name, timed)


class Place:
    """The folder of one size: pictures, cache and what runs leave.

    Args:
        out: The folder of all sizes.
        size: Number of pictures.
    """

    def __init__(self, out: Path, size: int) -> None:
        self.folder, self.size = out / str(size), size
        self.pictures, self.cache = self.folder / "pictures", self.folder / "cache"

    def run(self, *words: str) -> str:
        """Run a Python program with this cache; return what it prints."""
        env = {**os.environ, "XDG_CACHE_HOME": str(self.cache)}
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def prepared(self) -> dict[str, float]:
        """Return what `prepare` measures in a process of its own."""
        found: dict[str, float] = json.loads(self.run(__spec__.name, "--prepare", str(self.folder)))
        return found

    def first_step(self) -> tuple[float, float]:
        """Return the seconds of a fit to the end of its first step, and its peak memory in GB."""
        run_dir, moment, config = (self.folder / name for name in ("run", "moment", "config.yaml"))
        shutil.rmtree(run_dir, ignore_errors=True)
        moment.unlink(missing_ok=True)
        config.write_text(yaml.safe_dump(_config(self.pictures, moment)), encoding="utf-8")
        start = time.time()
        self.run("src.train", "fit", "--config", str(config), "--run_dir", str(run_dir))
        summary = json.loads((run_dir / "summary.json").read_text())
        seconds = float(json.loads(moment.read_text())["first_step"]) - start
        return seconds, summary["peak_memory"]["process_gib"] * 2**30 / GB


def _config(pictures: Path, moment: Path) -> dict[str, Any]:
    callback = {"class_path": "src.startup.Gauge", "init_args": {"path": str(moment)}}
    return {
        "data": {"root": str(pictures), "image_size": 16, "batch_size": 32},
        "model": {"net": {"class_path": "src.models.SmallResNet"}},
        "trainer": {
            "accelerator": "cpu",
            "logger": False,
            "max_steps": 1,
            "limit_val_batches": 0,
            "callbacks": [callback],
        },
    }


def measure(out: Path, sizes: Sequence[int], repeats: int) -> dict[str, Any]:
    """Return every size's measurements, cold, warm and of the first step."""
    places = [Place(out, size) for size in sizes]
    found: dict[str, Any] = {}
    for place in places:
        place.pictures.mkdir(parents=True, exist_ok=True)
        make_pictures(place.pictures, place.size)
        shutil.rmtree(place.cache, ignore_errors=True)
        cold, warm = place.prepared(), place.prepared()
        found[str(place.size)] = {"cold": cold, "warm": warm, "first_step_seconds": []}
        found[str(place.size)]["fit_peak_gb"] = 0.0
        print(f"{place.size:,}: cold {cold}, warm {warm}", file=sys.stderr, flush=True)
    for _ in range(repeats):
        for place in places:
            seconds, peak = place.first_step()
            measured = found[str(place.size)]
            measured["first_step_seconds"].append(seconds)
            measured["fit_peak_gb"] = max(measured["fit_peak_gb"], peak)
    return found


def main(args: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the numbers, with `--page` also page and picture."""
    with end_with_message() as outcome:
        options = _parser().parse_args(args)
        if options.prepare:
            print(json.dumps(prepare(options.prepare / "pictures", options.prepare)))
        else:
            _main(options)
    return outcome.code


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = made.add_argument
    add("--sizes", default="1000,10000,100000,1000000", help="numbers of pictures")
    add("--out", type=Path, default=Path("scale"), help="pictures, caches, numbers")
    add("--repeats", type=int, default=5, help="fits of each size (5)")
    add("--page", type=Path, help=f"also write into this page, say {PAGE.name}")
    add("--prepare", type=Path, help=argparse.SUPPRESS)
    return made


def _main(options: Any) -> None:
    words = options.sizes.split(",")
    if not all(word.isdigit() and int(word) > 0 for word in words) or options.repeats < 0:
        raise UserError(
            f"--sizes {options.sizes} --repeats {options.repeats}: allowed are numbers from 1 with "
            "commas between them, and a number from 0."
        )
    if options.page:
        page_with(options.page.read_text("utf-8"), "", "scale")  # before hours have passed
    found = measure(options.out.absolute(), [int(word) for word in words], options.repeats)
    record = {"machine": machine(), "repeats": options.repeats, "sizes": found}
    (options.out / "scale.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"{table(found)}\n{later(found)}")
    if options.page:
        drawn = draw(found, options.page.parent / "pictures" / PICTURE.name)
        if not drawn:
            print("no picture was drawn: matplotlib is not installed", file=sys.stderr)
        text = options.page.read_text("utf-8")
        options.page.write_text(page_with(text, section(record, SIDE, drawn), "scale"), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
