"""Says what is wrong with a data set: `python -m src.audit --data.root DIR`."""

import argparse
import errno
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from src.audit_page import audit_page, summary
from src.data.cache import check_place
from src.data.find import data_root
from src.data.findings import Note
from src.data.fixing import write_fixed
from src.data.index import Index, Listing, list_found
from src.data.inspection import Inspected, inspect
from src.doubt import read_all_scored, suspicious
from src.errors import RunFailureError, UserError, visible
from src.failures import Parser, end_with_message
from src.pages import is_page
from src.run import RunFolder, write_json, write_text
from src.scored import Scored

PROGRAM = "python -m src.audit"
_OUT = Path("runs", "audit")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 0 if nothing would falsify a score, 1 if something would, or 2."""
    with end_with_message() as outcome:
        words = list(sys.argv[1:] if args is None else args)
        options = parser().parse_args(words)
        data = what_to_look_at(options.root, options.run_dir)
        check_targets(options.out, options.fix, data.root)
        found = inspect(data.listing)
        notes = (*data.notes, *found.findings.notes, *suspicious(data.scored, found.findings.paths))
        found = replace(found, findings=replace(found.findings, notes=notes))
        folder = options.out or _OUT / f"{data.name}-{found.fingerprint[:12]}"
        with _writing(f"--out {folder}"):
            write_findings(folder, data.name, found, [*PROGRAM.split(), *words])
        say("\n".join(summary(found.findings)))
        if options.fix is not None:
            with _writing(f"--fix {options.fix}"):
                left = fix(options.fix, found)
            say("\n".join(left))
        say(str(folder / "audit.html"))
        outcome.code = int(found.findings.falsify)
    return outcome.code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Look for damaged files, copies, label conflicts, leaks and what is odd. "
        "Nothing is changed or deleted.",
        epilog="Exit code: 0 nothing would falsify a score, 1 conflicts, leaks or damaged files "
        "were found (or a failure, such as a full disk, told as an error), 2 a mistake.",
    )
    add = made.add_argument
    add("--data.root", dest="root", metavar="DIR", help="folder or CSV, as for fit")
    add(
        "--run_dir",
        type=Path,
        metavar="RUN",
        help="a scored run: its pictures and splits are looked at, and labels that it contradicts "
        "with confidence are named",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="gets audit.json and audit.html (default: runs/audit/<folder>-<fingerprint>)",
    )
    add(
        "--fix",
        type=Path,
        metavar="OUT.csv",
        help="write a new CSV, for --data.root, without conflicts and with one of each group of "
        "copies",
    )
    return made


@dataclass(frozen=True)
class Data:
    """What is looked at.

    Attributes:
        root: The folder or CSV.
        listing: Its pictures, or those of a run.
        notes: What was noticed while they were listed.
        scored: What the run said of them; empty without a run.
    """

    root: Path
    listing: Listing
    notes: tuple[Note, ...] = ()
    scored: tuple[Scored, ...] = ()

    @property
    def name(self) -> str:
        """A name for people and for folders; also of `.` and of a path with a slash at its end."""
        whole = Path(os.path.abspath(self.root))
        return (whole.stem if whole.is_file() else whole.name) or "data"


def what_to_look_at(root: str | None, run_dir: Path | None) -> Data:
    """Return the pictures of a folder or CSV, or those of a run.

    Raises:
        UserError: if there is neither, they can't be listed, or the run's pictures have moved.
    """
    if run_dir is None:
        if root is None:
            raise UserError("there are no data: give --data.root a folder or a CSV, or --run_dir.")
        place = data_root(root, None)
        listing, refusal = list_found(place)
        return Data(
            place, listing, (Note(f"fit refuses these data: {refusal}"),) if refusal else ()
        )
    run = RunFolder(run_dir).require()
    place, listing = _of_run(run, root)
    return Data(place, listing, scored=tuple(read_all_scored(run)))


def _of_run(run: RunFolder, root: str | None) -> tuple[Path, Listing]:
    """Return the folder or CSV of a run, and its pictures with the groups that a CSV gives."""
    own_root, classes = _recorded(run)
    place = data_root(root or own_root, None)
    folder = place.parent if place.is_file() else place
    index = Index.from_csv(run.samples, folder, classes)
    _check_files(run, folder, [index.path(i) for i in range(len(index))])
    listing = Listing.of(index)
    if place.is_file():
        whole = list_found(place)[0]
        groups = dict(zip(whole.paths, whole.groups, strict=True))
        listing = replace(listing, groups=tuple(groups.get(path, "") for path in listing.paths))
    return place, listing


def _recorded(run: RunFolder) -> tuple[str | None, list[str]]:
    """Return the root and the classes that run.json names."""
    about = run.read_record().get("data", {})
    if isinstance(about, dict):
        root, classes = about.get("root"), about.get("classes", [])
        if isinstance(root, str | None) and isinstance(classes, list):
            return root, classes
    raise UserError(f"{run.record}: data has to have root and classes, and is {about!r}.")


def _check_files(run: RunFolder, folder: Path, paths: Sequence[Path]) -> None:
    """Refuse data that have moved, and what is neither file nor folder: a pipe never ends."""
    odd = next((p for p in paths if p.exists() and not (p.is_file() or p.is_dir())), None)
    if odd is not None:
        raise UserError(f"{odd}, which {run.samples} names, is no file. Take it out.")
    if not all(path.exists() for path in paths[:: max(1, len(paths) // 50)]):
        raise UserError(
            f"pictures of {run.path} are not in {folder} any more. If the data have moved, give "
            "--data.root DIR too."
        )


def check_targets(out: Path | None, fixed: Path | None, root: Path) -> None:
    """Refuse what would lie among the pictures or can't be written, before the long look.

    Raises:
        UserError: that says so.
    """
    check_place(True, root)
    _check_target(f"--out {out or _OUT}", (out or _OUT) / "audit.html", root)
    if out is not None:
        _refuse_others(out)
    if fixed is None:
        return
    if fixed.suffix.lower() != ".csv" or fixed.is_dir():
        raise UserError(f"--fix {fixed}: give the name of a file that ends in .csv.")
    if root.is_file() and fixed.resolve() == root.resolve():
        raise UserError(f"--fix {fixed} is the data itself, which stays as it is. Give another.")
    _check_target(f"--fix {fixed}", fixed, root)
    if fixed.exists() and fixed.stat().st_size:
        raise UserError(f"--fix {fixed} is there already. Give another name, or remove it.")


def _refuse_others(out: Path) -> None:
    """Refuse to replace what no audit has written."""
    for path in (out / "audit.html", out / "audit.json"):
        if path.is_file() and not _is_own(path):
            raise UserError(
                f"--out {out}: {path.name} is there, and is of no audit. Give another place, or "
                "remove it."
            )


def _is_own(path: Path) -> bool:
    if path.suffix == ".html":
        return is_page(path, "audit")
    try:
        found = json.loads(path.read_bytes() or b"null")
    except (ValueError, RecursionError):
        return False
    return found is None or (isinstance(found, dict) and found.keys() >= {"n", "damaged"})


def _check_target(option: str, file: Path, root: Path) -> None:
    inside = file.parent.resolve()
    if root.is_dir() and root.resolve() in (inside, *inside.parents):
        raise UserError(
            f"{option} lies inside --data.root {root}: what is written would become data. Give a "
            "place outside."
        )
    there = next(path for path in (inside, *inside.parents) if os.path.exists(path))
    if not there.is_dir():
        raise UserError(f"{option}: {there} is a file. Give a place in a folder.")
    trial = there / f".{file.name}.{os.getpid()}.tmp"
    try:  # the one sure test: an administrator may write where nothing can be written
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UserError(
            f"{option}: nothing can be written into {there} ({error.strerror or error}). Give "
            "another place, or make it writable."
        ) from error


@contextmanager
def _writing(option: str) -> Iterator[None]:
    """Name the option where what it asks for can't be written after all."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename2})" if error.filename2 else ""  # the first is a temporary file
        what = f"{option} can't be written: {error.strerror or error}{where}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunFailureError(
                f"{what} Free some space; a second look at the same files is quick."
            ) from error
        raise UserError(f"{what} Give another place.") from error


def write_findings(folder: Path, name: str, found: Inspected, command: Sequence[str]) -> None:
    """Write audit.json and audit.html; old ones are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "audit.json", found.findings.to_dict())
    # A file's name may be no UTF-8; in JSON it is escaped anyway.
    text = audit_page(name, found, command)
    write_text(folder / "audit.html", text, errors="backslashreplace")


def fix(path: Path, found: Inspected) -> list[str]:
    """Write the CSV of what is left, and return lines about it."""
    findings = found.findings
    left = write_fixed(path, found.root, findings, found.sizes, found.groups)
    lines = [f"{len(left):,} of {len(findings.paths):,} pictures are left in {path}"]
    lost = sorted({*findings.labels} - {findings.labels[i] for i in left})
    return [*lines, visible(f"WARNING: of {', '.join(lost)} none is left")] if lost else lines


def say(text: str) -> None:
    """Print file names that the terminal's encoding may lack."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


if __name__ == "__main__":
    sys.exit(main())
