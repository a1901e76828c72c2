"""How many planted faults an audit finds: `python -m tests.benchmarks.planted --root DATA`.

DATA has the folders `train` and `test` with the same classes. The copies that an audit finds in it
are left out of a copy of it; faults of twelve kinds are planted there, drawn by a seed; another
audit looks at it. Printed is how many of each kind it named by their kind and file, and how many of
the pictures that nobody touched it accused of being damaged or copies. DATA itself stays as it is.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from src.audit import main as audit
from src.data.index import list_data
from src.errors import UserError
from src.failures import end_with_message
from src.preprocess import open_rgb

CROP = 0.9  # of the sides

Rng = np.random.Generator
Change = Callable[[Image.Image, Rng], Image.Image]


class Planted(NamedTuple):
    """A fault: its kind, the picture it was made of, and the file that shows it."""

    kind: str
    victim: str
    path: str


def crop(picture: Image.Image, rng: Rng) -> Image.Image:
    """Return CROP of the sides at a random place."""
    width, height = (max(1, round(CROP * side)) for side in picture.size)
    x, y = (
        int(rng.integers(0, free + 1)) for free in (picture.width - width, picture.height - height)
    )
    return picture.crop((x, y, x + width, y + height))


def half(picture: Image.Image, _: Rng) -> Image.Image:
    """Return half of the sides."""
    width, height = (max(1, side // 2) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


# kind -> what becomes of the pixels, the quality of the JPEG, and the list that has to name it
COPIES: dict[str, tuple[Change, int, str]] = {
    "encoded anew, quality 60": (lambda picture, _: picture, 60, "duplicates"),
    "half the sides": (half, 85, "duplicates"),
    "mirrored": (lambda picture, _: ImageOps.mirror(picture), 85, "duplicates"),
    "grey": (lambda picture, _: picture.convert("L"), 85, "duplicates"),
    "crop of 90 %": (crop, 85, "duplicates"),
    "encoded anew, in the other split": (lambda picture, _: picture, 85, "leaks"),
    "encoded anew, under another label": (lambda picture, _: picture, 85, "conflicts"),
}
EXACT, SUFFIX = "exact copy", "wrong suffix"
DAMAGE: dict[str, Callable[[bytes, Rng], bytes]] = {
    "truncated": lambda data, rng: data[: int(len(data) * rng.uniform(0.3, 0.9))],
    "empty": lambda data, rng: b"",
    "no picture": lambda data, rng: b"<html>404: no such picture</html>" * int(rng.integers(1, 99)),
}
KINDS = (EXACT, *COPIES, *DAMAGE, SUFFIX)


def main(args: Sequence[str] | None = None) -> int:
    """Plant, audit, print; return the exit code."""
    with end_with_message() as outcome:
        options = parser().parse_args(args)
        with tempfile.TemporaryDirectory(prefix="planted-") as folder, _own_cache(folder):
            for line in measure(Path(options.root), Path(folder), options.seed, options.faults):
                print(line)
    return outcome.code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    made.add_argument("--root", required=True, metavar="DATA", help="train/<class>, test/<class>")
    made.add_argument("--seed", type=int, default=0, help="of the faults (default: 0)")
    made.add_argument("--faults", type=int, default=200, help="how many (default: 200)")
    return made


@contextmanager
def _own_cache(folder: str) -> Iterator[None]:
    """Start from an empty cache, and leave nothing in the user's."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(Path(folder, "cache"))
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before


def measure(root: Path, folder: Path, seed: int, faults: int) -> list[str]:
    """Return the lines to print."""
    listing, data = list_data(root), folder / "data"
    if {*listing.splits} != {"train", "test"}:
        raise UserError(f"--root {root} needs the folders train and test, and no other split.")
    fixed = folder / "fixed.csv"
    fixed.unlink(missing_ok=True)
    _audit(root, folder / "before", "--fix", str(fixed))
    left = list_data(fixed)
    names = [os.path.relpath(left.root / path, root.absolute()) for path in left.paths]
    for name in names:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, data / name)
    if len(names) < faults:
        raise UserError(f"--faults {faults}: there are {len(names)} pictures.")
    planted = plant(data, names, seed, faults)
    start = time.perf_counter()
    found = _audit(data, folder / "after")
    seconds = time.perf_counter() - start
    about = f"{len(names):,} pictures of {len(listing):,} were left, {len(planted)} faults, seed"
    speed = f"{found['n']:,} files audited in {seconds:.1f} s, nothing known of them before"
    return [f"{about} {seed}", *table(planted, found), clean_line(planted, names, found), speed]


def _audit(root: Path, out: Path, *more: str) -> dict[str, Any]:
    with redirect_stdout(sys.stderr):
        code = audit(["--data.root", str(root), "--out", str(out), *more])
    if code == 2:
        raise UserError(f"the audit of {root} ended with 2.")
    found: dict[str, Any] = json.loads((out / "audit.json").read_text("utf-8"))
    return found


def plant(data: Path, names: Sequence[str], seed: int, faults: int) -> list[Planted]:
    """Plant faults of all kinds by turns, each on a picture of its own."""
    rng = np.random.default_rng(seed)
    victims = rng.permutation(len(names))[:faults].tolist()
    labels = sorted({name.split("/")[1] for name in names})
    return [
        _plant_one(data, KINDS[number % len(KINDS)], names[victim], number, labels, rng)
        for number, victim in enumerate(victims)
    ]


def _plant_one(
    data: Path, kind: str, victim: str, number: int, labels: Sequence[str], rng: Rng
) -> Planted:
    source = data / victim
    split, label, *_ = victim.split("/")
    if kind in DAMAGE:
        source.write_bytes(DAMAGE[kind](source.read_bytes(), rng))
        return Planted(kind, victim, victim)
    if kind == SUFFIX:
        suffix = ".png" if source.suffix.lower() in (".jpg", ".jpeg") else ".jpg"
        source.rename(source.with_suffix(suffix))
        return Planted(kind, victim, str(Path(victim).with_suffix(suffix)))
    if kind == EXACT:
        path = f"{split}/{label}/planted-{number}{source.suffix}"
        shutil.copyfile(source, data / path)
        return Planted(kind, victim, path)
    change, quality, where = COPIES[kind]
    if where == "leaks":
        split = "test" if split == "train" else "train"
    if where == "conflicts":
        label = str(rng.choice([name for name in labels if name != label]))
    path = f"{split}/{label}/planted-{number}.jpg"
    change(open_rgb(source), rng).save(data / path, "JPEG", quality=quality)
    return Planted(kind, victim, path)


def is_found(one: Planted, found: dict[str, Any]) -> bool:
    """Return whether an audit names a fault as what it is."""
    if one.kind in DAMAGE:
        return one.path in {file["path"] for file in found["damaged"]}
    if one.kind == SUFFIX:
        notes = (note for note in found["notes"] if note["note"].startswith("suffix says"))
        return any(one.path in note["paths"] for note in notes)
    where = "duplicates" if one.kind == EXACT else COPIES[one.kind][2]
    return any({one.victim, one.path} <= {*group["paths"]} for group in found[where])


def table(planted: Sequence[Planted], found: dict[str, Any]) -> list[str]:
    """Return a row for each kind, and one for all."""
    rows = []
    for kind in KINDS:
        of_kind = [is_found(one, found) for one in planted if one.kind == kind]
        rows.append((kind, len(of_kind), sum(of_kind)))
    rows.append(("all", len(planted), sum(count for _, _, count in rows)))
    lines = [f"| {kind} | {n} | {count} | {_percent(count, n)} |" for kind, n, count in rows]
    return ["| kind | planted | found | share |", "|---|---|---|---|", *lines]


def clean_line(planted: Sequence[Planted], names: Sequence[str], found: dict[str, Any]) -> str:
    """Return how many pictures that nobody touched are said to be damaged or copies."""
    clean = {*names} - {one.victim for one in planted}
    groups = (group for name in ("conflicts", "leaks", "duplicates") for group in found[name])
    accused = {path for group in groups for path in group["paths"]}
    accused |= {file["path"] for file in found["damaged"]}
    wrong = sorted(accused & clean)
    shown = f": {', '.join(wrong[:6])}" if wrong else ""
    share = _percent(len(wrong), len(clean))
    return f"clean pictures accused: {len(wrong)} of {len(clean):,}, {share}{shown}"


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %" if total else "-"


if __name__ == "__main__":
    sys.exit(main())
