"""Makes a bundle of a run that can be shipped: `python -m src.export RUN_DIR [--out DIR]`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src import bundle_files as files
from src import onnx_file, parity, variants
from src.bundle import MODELS, Bundle
from src.bundle_record import RECORD
from src.checkpoint import read_checkpoint
from src.classifier import Classifier
from src.data.index import SPLIT_NAMES
from src.errors import UserError
from src.failures import Parser, end_with_message
from src.forward import evaluate, evenly, take
from src.known import FromPictures, Known, blocks
from src.memory import keep_freed_memory
from src.metrics import scores
from src.opened import add_options, open_run
from src.preprocess import Preprocessing
from src.quiet import quiet_libraries
from src.scored import MARK
from src.seal import mark_of
from src.staged import require_place, staged
from src.trained import Trained

PROGRAM = "python -m src.export"
MOST = 5_000  # pictures that a model is scored on
CALIBRATED = 200  # pictures that 8-bit ranges are taken from


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 if the model disagrees with training, 2 for a mistake."""
    with end_with_message() as outcome:
        quiet_libraries()
        options = parser().parse_args(args)
        if options.int8 and options.no_parity:
            raise UserError(
                "--int8 needs pictures for its ranges; leave out --no_parity, or --int8."
            )
        onnx_file.require()
        run = open_run(options.run, options.root, options.trust_code)
        out = options.out or run.folder.path / "bundle"
        place = require_place(out, RECORD, files.NAMES)
        keep_freed_memory()
        trained = _load(run, options.ckpt_path)
        known = None if options.no_parity else _known(run, trained)
        with staged(place) as folder:
            _write(folder, run, trained, known, options)
        for line in run.missing.lines:
            print(f"WARNING: {line}", file=sys.stderr)
        print(out)
    return outcome.code


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    made = Parser(
        prog=PROGRAM,
        allow_abbrev=False,
        description="Write a model that needs neither torch nor this project: ONNX, weights as "
        "safetensors, and a record of what they are. It is compared with the trained network on "
        "pictures from the disk, and written only if both agree.",
        epilog="Exit code: 0 written, 1 it disagrees or could not be made, 2 a mistake.",
    )
    add = made.add_argument
    add("run", type=Path, metavar="RUN", help="run folder")
    add("--out", type=Path, metavar="DIR", help="the bundle (default: bundle in the run folder)")
    add(
        "--ckpt_path",
        metavar="NAME",
        help="best, last or a .ckpt file (default: best, or last without one)",
    )
    add("--fp16", action="store_true", help="add a model of half precision")
    add("--int8", action="store_true", help="add one of 8 bits, calibrated on validation pictures")
    add(
        "--no_parity",
        action="store_true",
        help="compare and score nothing, for a machine without the pictures; the bundle says so",
    )
    add(
        "--no_pictures",
        action="store_true",
        help="leave out the small validation pictures that the page of src.serve shows",
    )
    add_options(made)
    return made


@dataclass(frozen=True)
class Loaded:
    """A checkpoint, opened: its path, the module, and the way of its pictures."""

    path: Path
    module: Classifier
    preprocessing: Preprocessing


def _load(run: Trained, name: str | None) -> Loaded:
    path = run.folder.checkpoint(name) if name else run.folder.best_or_last()
    stored = read_checkpoint(path).get("preprocessing")
    try:
        rule = Preprocessing.from_dict(stored or {})
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path} says nothing sound of its pictures: {error}. Take another."
        ) from error
    module = Classifier.load_from_checkpoint(path, map_location="cpu", trust_code=run.trust_code)
    module.eval().requires_grad_(False)
    return Loaded(path, module, rule)


def _known(run: Trained, trained: Loaded) -> Known:
    """Let the trained network look at validation pictures; raise UserError without any."""
    index = run.index
    if index is None:
        raise UserError(
            f"the export is compared with training on pictures, and {run.missing.lines[-1]}. "
            "--no_parity exports without comparing."
        )
    there = set(index.splits.tolist())
    judging = ["val", *(["test"] if run.chosen_on_test else []), "train"]
    split = next((name for name in judging if name in there), None)
    if split is None:
        raise UserError(
            "the run has neither validation nor training pictures to compare the export on. "
            "--no_parity exports without comparing."
        )
    pictures = run.pictures(split, MOST)
    labelled = np.flatnonzero(pictures.index.labels >= 0)
    if not labelled.size:
        raise UserError(
            f"none of the {SPLIT_NAMES[split]} pictures has a label to compare the export on. "
            "--no_parity exports without comparing."
        )
    pictures = take(pictures, labelled)
    print(f"looking at {len(pictures):,} {SPLIT_NAMES[split]} pictures ...", flush=True)
    table = evaluate(trained.module.net, pictures, run.block_size)
    return Known(split, pictures.index.paths, table, FromPictures(pictures))


def _write(folder: Path, run: Trained, trained: Loaded, known: Known | None, options: Any) -> None:
    decision, rule = trained.module.decision, trained.preprocessing
    first = folder / MODELS["fp32"]
    print("writing the model ...", flush=True)
    onnx_file.write_onnx(trained.module.net, decision.temperature, rule.image_size, first)
    files.write_weights(trained.module.net, folder / files.WEIGHTS)
    wanted = [name for name in ("fp16", "int8") if getattr(options, name)]
    for name in wanted:
        print(f"writing {MODELS[name]} ...", flush=True)
        _write_variant(name, first, folder, known)
    files.write_record(folder, rule, decision, {})  # so that it can be opened
    about: dict[str, Any] = {"parity": None, "models": {}, "shown": False}
    about["scores"] = _scores(run, trained.path)
    opened = [Bundle(folder, name) for name in ("fp32", *wanted)]
    if known is None:
        print("not compared with the trained network: --no_parity", flush=True)
    else:
        about["parity"] = _parity(run, trained, known, opened[0])
        about["scores"].setdefault(known.split, scores(known.table, rule.classes, decision))
        about["shown"] = not options.no_pictures and opened[0].has_features
        files.write_validation(known, opened[0], decision, about["shown"])
    about["models"] = _measured(opened, known)
    files.write_record(folder, rule, decision, {**_source(run, trained), **about})
    files.write_readme(folder, run.folder.path.absolute().name, about)


def _write_variant(name: str, first: Path, folder: Path, known: Known | None) -> None:
    target = folder / MODELS[name]
    if name == "fp16":
        variants.write_fp16(first, target)
    else:
        assert known is not None
        places = evenly(len(known.pixels), CALIBRATED)
        variants.write_int8(first, target, known.pixels[places])


def _parity(run: Trained, trained: Loaded, known: Known, bundle: Bundle) -> dict[str, Any]:
    assert run.index is not None
    places = evenly(len(known.paths), parity.PICTURES)
    paths = [run.index.root / known.paths[i] for i in places]
    expected = parity.Expected(paths, known.table.logits[places], trained.module.decision)
    found = parity.check_parity(bundle, expected)
    print(
        f"agrees with the trained network on {found['pictures']} pictures: at most "
        f"{found['largest_difference']:.1g} apart"
    )
    return {**found, "split": known.split}


def _scores(run: Trained, checkpoint: Path) -> dict[str, Any]:
    """Return what test.json and validate.json say of this checkpoint and the run's own pictures."""
    own = {split: run.scores(split) for split in ("val", "test") if run.is_own(split)}
    mark = mark_of(checkpoint)
    return {s: found for s, found in own.items() if mark is not None and found.get(MARK) == mark}


def _measured(opened: Sequence[Bundle], known: Known | None) -> dict[str, Any]:
    """Return size, scores and speed of each model.

    Raises:
        RunFailureError: one of them gives no numbers.
    """
    found: dict[str, dict[str, Any]] = {
        bundle.variant: {"bytes": (bundle.folder / MODELS[bundle.variant]).stat().st_size}
        for bundle in opened
    }
    if known is None:
        side = opened[0].record.preprocessing.image_size
        parity.probabilities_of(opened, np.zeros((1, side, side, 3), np.uint8))
        return found
    speeds = parity.pictures_per_second(opened, next(blocks(known.pixels)))
    said = parity.probabilities_of(opened, known.pixels)
    for bundle, speed, shares in zip(opened, speeds, said, strict=True):
        rows = found[bundle.variant]
        rows |= parity.scored(bundle, shares, known.table.target, said[0])
        rows["pictures_per_second"] = round(speed, 1)
        on = f"{rows['n']:,} {SPLIT_NAMES[known.split]} pictures"
        print(f"{bundle.variant}: {rows['accuracy']:.4f} on {on}, {rows['bytes'] / 1e6:.1f} MB, "
              f"{speed:,.0f} pictures a second")  # fmt: skip
    return found


def _source(run: Trained, trained: Loaded) -> dict[str, Any]:
    """Return where the model comes from, without any path of this machine."""
    data = run.record.get("data", {})
    return {
        "run": run.folder.path.absolute().name,
        "checkpoint": trained.path.name,
        "network": type(trained.module.net).__name__,
        "parameters": sum(p.numel() for p in trained.module.net.parameters()),
        "data_fingerprint": data.get("fingerprint"),
        "training": {
            "seed": run.record.get("seed"),
            "git_commit": run.record.get("git_commit"),
            "versions": run.record.get("versions"),
        },
    }


if __name__ == "__main__":
    sys.exit(main())
