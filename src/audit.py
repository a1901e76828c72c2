"""Says what is wrong with a data set: `python -m src.audit --data.root DIR`."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from src.audit_page import audit_page, verdict
from src.data.find import data_root
from src.data.findings import Findings, Note
from src.data.fixing import write_fixed
from src.data.index import Index, Listing, list_data
from src.data.inspection import inspect
from src.errors import UserError
from src.failures import Parser, end_with_message
from src.run import RunFolder, write_json, write_text
from src.scored import COMMANDS, Scored, read_scored

PROGRAM = "python -m src.audit"
_SHOWN = 5  # of a kind, on the terminal


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 0 if nothing would falsify a score, 1 if something would, or 2."""
    with end_with_message() as outcome:
        words = list(sys.argv[1:] if args is None else args)
        options = parser().parse_args(words)
        root, listing, run = what_to_look_at(options.root, options.run_dir)
        if options.fix is not None:
            _check_fix(options.fix, root)
        found = inspect(listing)
        if run is not None:
            notes = (*found.findings.notes, *suspicious(run, found.findings))
            found = replace(found, findings=replace(found.findings, notes=notes))
        folder = options.out or Path("runs", "audit", f"{root.stem}-{found.fingerprint[:12]}")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "audit.json", found.findings.to_dict())
        write_text(folder / "audit.html", audit_page(root.name, found, [*PROGRAM.split(), *words]))
        _say("\n".join(summary(found.findings)))
        if options.fix is not None:
            left = write_fixed(options.fix, found.root, found.findings, found.sizes)
            _say(f"{left:,} of {len(found.findings.paths):,} pictures are left in {options.fix}")
        _say(str(folder / "audit.html"))
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
        "were found, 2 a mistake.",
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
        help="write a CSV, for --data.root, without conflicts and with one of each group of copies",
    )
    return made


def what_to_look_at(
    root: str | None, run_dir: Path | None
) -> tuple[Path, Listing, RunFolder | None]:
    """Return the folder or CSV, the listing of its pictures, and the run if there is one.

    Raises:
        UserError: if there is neither, or the run has no pictures there.
    """
    if run_dir is None:
        if root is None:
            raise UserError("there are no data: give --data.root a folder or a CSV, or --run_dir.")
        place = data_root(root, None)
        return place, list_data(place), None
    run = RunFolder(run_dir).require()
    about = run.read_record().get("data", {})
    place = data_root(root or about.get("root"), None)
    folder = place.parent if place.is_file() else place
    index = Index.from_csv(run.samples, folder, about.get("classes", ()))
    if not all(index.path(i).exists() for i in range(0, len(index), max(1, len(index) // 50))):
        raise UserError(
            f"pictures of {run_dir} are not in {folder} any more. If the data have moved, give "
            "--data.root DIR too."
        )
    return place, Listing.of(index), run


def _check_fix(path: Path, root: Path) -> None:
    """Refuse a CSV that would lie among the pictures or replace the data's own."""
    if path.suffix.lower() != ".csv":
        raise UserError(f"--fix {path}: give a name that ends in .csv.")
    if root.is_file() and path.resolve() == root.resolve():
        raise UserError(f"--fix {path} is the data itself, which stays as it is. Give another.")


def suspicious(run: RunFolder, findings: Findings) -> list[Note]:
    """Return the labels that a run contradicts with more confidence than it has on average.

    Confident learning (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068): a picture of another
    label is counted for a class if its probability is at least the mean one of the pictures that
    bear that label. Only pictures that the run was not trained on can say anything.

    Raises:
        UserError: if the run was not scored.
    """
    scored = [read_scored(run.path, split) for split in _scored_splits(run)]
    by_note: dict[str, list[tuple[float, str]]] = defaultdict(list)
    there = set(findings.paths)
    for one in scored:
        for at in doubted(one):
            if one.paths[at] in there:
                own = float(one.probabilities[at, one.classes.index(one.labels[at])])
                what = f"labelled {one.labels[at]}, and the run is sure of {one.predicted[at]}"
                by_note[what].append((own, one.paths[at]))
    return [
        Note(note, tuple(path for _, path in sorted(found)))
        for note, found in sorted(by_note.items())
    ]


def _scored_splits(run: RunFolder) -> list[str]:
    there = [s for s, command in COMMANDS.items() if (run.path / f"{command}.json").is_file()]
    if not there:
        raise UserError(
            f"{run.path} was not scored, so it contradicts no label. Score it: python -m src.train "
            f"validate --run_dir {run.path}"
        )
    return there


def doubted(scored: Scored) -> list[int]:
    """Return the places of pictures whose label a run contradicts with confidence."""
    places = {name: c for c, name in enumerate(scored.classes)}
    usual = {
        name: scored.probabilities[[label == name for label in scored.labels], c].mean()
        for name, c in places.items()
        if name in scored.labels
    }
    return [
        at
        for at, (label, said) in enumerate(zip(scored.labels, scored.predicted, strict=True))
        if said != label and said in usual and scored.probabilities[at, places[said]] >= usual[said]
    ]


def summary(findings: Findings) -> list[str]:
    """Return lines for a terminal."""
    copies = findings.copies
    lines = [f"{len(findings.paths) + len(findings.damaged):,} files looked at"]
    for name, groups in (
        ("label conflicts", copies.conflicts),
        ("leaks between splits", copies.leaks),
        ("duplicates", copies.duplicates),
    ):
        exact = sum(group.kind == "exact" for group in groups)
        kinds = f" ({exact:,} exact, {len(groups) - exact:,} near)" if groups else ""
        lines.append(f"{name}: {len(groups):,}{kinds}")
        lines += [f"  {'  '.join(findings.paths[i] for i in g.members)}" for g in groups[:_SHOWN]]
        lines += [f"  and {len(groups) - _SHOWN:,} more"] if len(groups) > _SHOWN else []
    lines.append(f"damaged files: {len(findings.damaged):,}")
    lines += [f"  {path}: {reason}" for path, reason in findings.damaged[:_SHOWN]]
    more = len(findings.damaged) - _SHOWN
    lines += [f"  and {more:,} more"] if more > 0 else []
    for note in findings.notes:
        lines.append(f"note: {note.note}{f' ({len(note.paths):,})' if note.paths else ''}")
    return [*lines, verdict(findings)]


def _say(text: str) -> None:
    """Print file names that the terminal's encoding may lack."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


if __name__ == "__main__":
    sys.exit(main())
