"""The beginning and the end of a fit: starting weights, the run folder's files, the summary."""

import copy
import importlib.util
import math
import os
import secrets
import subprocess
import sys
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback

from src import checkpoint
from src.child import REPORT, environment
from src.class_weights import check_once
from src.classifier import Classifier
from src.data.datamodule import DataModule
from src.data.inspection import warn_of_copies
from src.errors import StoppedRun, UserError, command_text, quoted_list
from src.intervals import wilson_interval
from src.loop import Checkpoints, MetricsCsv
from src.loop.warm_start import OptimizerStart
from src.results import parameter_counts, peak_memory
from src.rows import read_rows
from src.run import RunFolder, git_commit, versions, write_json, write_text
from src.run_rules import Plan
from src.table import Table


def wandb_id(plan: Plan) -> str:
    """Return the run's id there: the stored one if the run goes on, else a new one."""
    stored = plan.folder.read_record().get("wandb_id") if plan.folder and plan.resumes else None
    return stored or secrets.token_hex(4)


def starting_weights(
    plan: Plan, options: Any, model: Classifier, classes: list[str]
) -> list[Callback]:
    """Check the checkpoint to go on from, or take over another run's weights or pretrained ones.

    Returns:
        The callback that takes over its optimizer state too, if that was asked for.

    Raises:
        UserError: if the checkpoint is damaged or of another network, both ways were asked for, or
            the pretrained weights can't be had.
    """
    if plan.checkpoint is not None:
        if options.init_from and not plan.resumes:
            raise UserError(
                "--init_from starts a new run and --ckpt_path goes on with one: give one."
            )
        content = checkpoint.read_checkpoint(plan.checkpoint)
        checkpoint.check_goes_on(plan.checkpoint, content)
        checkpoint.check_fits(plan.checkpoint, content, model)
        checkpoint.check_groups(plan.checkpoint, content, model.build_optimizer())
        model.expect_checkpoint()
        return []
    if not options.init_from:
        if options.init_optimizer:
            raise UserError("--init_optimizer true needs --init_from RUN_OR_CKPT.")
        if model.load_pretrained():
            print(f"starting from the pretrained weights of {type(model.net).__name__}")
        return []
    source = Path(options.init_from)
    path = RunFolder(source).require().best_or_last() if source.is_dir() else source
    content = checkpoint.read_checkpoint(path, "--init_from")
    theirs = (content.get("preprocessing") or {}).get("classes")
    fresh = checkpoint.transplant(path, content, model.net, keep_head=theirs == classes)
    print(f"starting from the weights of {path}")
    if fresh:
        print(f"its classes are {theirs}, ours {classes}: a new head ({', '.join(fresh)})")
    return [OptimizerStart(content)] if options.init_optimizer else []


def begin_run(
    plan: Plan, data: DataModule, config: Mapping[str, Any], record: dict[str, Any]
) -> None:
    """Write the files of a new run before its first step.

    Args:
        plan: With the run folder.
        data: The data, already indexed.
        config: The config as it is stored.
        record: What run.json says beside versions and data.
    """
    assert plan.folder is not None
    folder, index = plan.folder, data.index("fit")
    folder.path.mkdir(parents=True, exist_ok=True)
    # First: what a kill leaves here is then known for a run that has not begun.
    write_text(folder.config, yaml.safe_dump(dict(config), sort_keys=False))
    index.to_csv(folder.samples, data.found("fit").skipped)
    about = {
        "root": str(data.location.absolute()),
        "fingerprint": index.fingerprint(),
        "classes": list(data.classes),
        "counts": index.counts(),
        "skipped": len(data.found("fit").skipped),
    }
    started = datetime.now(UTC).isoformat(timespec="seconds")
    more = {"started": started, "versions": versions(), "git_commit": git_commit()}
    write_json(folder.record, {**record, **more, "data": about})


def look_for_copies(data: DataModule) -> None:
    """Tell of pictures under several labels or in several splits, by `data.on_leak`.

    Raises:
        UserError: if there are any and they are refused.
    """
    warn_of_copies(data.index("fit"), data.location, refuse=data.on_leak == "error")


def describe_data(data: DataModule) -> str:
    """Return lines on what is trained on what, and what is unusual about it."""
    found = data.found("fit")
    counts = found.index.counts()
    parts = [f"{split} {sum(by_class.values())}" for split, by_class in counts.items()]
    skipped = f", {len(found.skipped)} damaged left out" if found.skipped else ""
    sizes = f"{data.image_size} pixels, {data.resize}"
    lines = [f"pictures: {', '.join(parts)}{skipped} | {quoted_list(data.classes)} | {sizes}"]
    if found.passed_over:
        lines.append(f"passed over: {found.passed_over} of the operating system's own files")
    if found.notes:
        lines.append(f"notes: {', '.join(f'{n} {note}' for note, n in found.notes.items())}")
    return "\n".join(lines)


def check_apart(folder: RunFolder | None, location: Path) -> None:
    """Raise UserError if the run folder would lie inside the data."""
    if folder is None or not location.is_dir():
        return
    inside = folder.path.resolve()
    if location.resolve() in (inside, *inside.parents):
        raise UserError(
            f"--run_dir {folder.path} lies inside --data.root {location}: the run's files would "
            "become data. Give a folder outside."
        )


def weigh_classes(model: Classifier, data: DataModule) -> None:
    """Let the model know how many pictures of each class are trained on.

    Raises:
        UserError: if small classes would count for more in two ways at once.
    """
    check_once(model.class_weights, data.sampling)
    model.take_counts(data.train_counts)


def try_step(model: Classifier, data: DataModule) -> None:
    """Send two grey pictures of the training size through a copy of the network and the loss.

    Raises:
        UserError: if either fails, before a run folder is made.
    """
    net = copy.deepcopy(model.net).train()
    size = data.training_shape
    pixels = torch.full((min(2, data.batch_size), *size), 128, dtype=torch.uint8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # a loss that would broadcast its targets
            logits = model.check_logits(net(pixels), pixels)
            loss = model.loss(logits, torch.zeros(len(pixels), dtype=torch.int64))
        if loss.dim():
            raise ValueError(f"the loss has the shape {list(loss.shape)}, expected is one number")
    except (RuntimeError, TypeError, ValueError, UserWarning) as error:
        raise UserError(
            f"{type(net).__name__} or the loss fails on {len(pixels)} training picture(s) of "
            f"{size[0]} x {size[1]} pixels: {error}. Change data.image_size, data.batch_size, "
            "model.net or model.loss."
        ) from error


def describe_net(model: Classifier) -> str:
    """Return a line on what is trained."""
    counts = parameter_counts(model.net)
    return (
        f"{type(model.net).__name__}: {counts['parameters']:,} parameters, "
        f"{counts['trainable_parameters']:,} of them trained"
    )


def finish_run(folder: RunFolder, trainer: Any, model: Classifier, seed: int) -> None:
    """Write summary.json and print how the run ended."""
    clock = next((c for c in trainer.callbacks if isinstance(c, MetricsCsv)), None)
    kept = next((c for c in trainer.callbacks if isinstance(c, Checkpoints)), None)
    record = folder.read_record()
    rows = read_rows(folder.metrics)
    summary = {
        "final": {name: _number(text) for name, text in rows[-1].items()} if rows else {},
        "best": kept.best if kept else {},
        "wall_seconds": round(clock.seconds, 3) if clock else None,
        **parameter_counts(model.net),
        "peak_memory": peak_memory(),
        "seed": seed,
        "versions": versions(),
        "git_commit": git_commit(),
        "data_fingerprint": record.get("data", {}).get("fingerprint"),
    }
    write_json(folder.summary, _without_nan(summary))
    if kept and kept.best and kept.monitor in kept.best:
        print(_best_line(kept, model.table))
    elif not kept or not kept.best:
        print("no validation was run: there is no best.ckpt", file=sys.stderr)


def wants_report(wanted: bool | None) -> bool:
    """Return what `--report` means here."""
    return os.environ.get(REPORT, "").lower() not in ("false", "0") if wanted is None else wanted


def write_report(folder: RunFolder, wanted: bool | None, trust_code: str | None) -> None:
    """Make report.html in a process of its own; a failure is told and spoils nothing.

    Args:
        folder: Of the run.
        wanted: As `--report`.
        trust_code: As `--trust_code`.
    """
    if not wants_report(wanted):
        return
    if importlib.util.find_spec("matplotlib") is None:
        print('no report: it needs matplotlib, pip install -e ".[report]"', file=sys.stderr)
        return
    print("writing the report ...", flush=True)
    trusted = ["--trust_code", trust_code] if trust_code else []
    words = ["-m", "src.report", str(folder.path), *trusted]
    again = f"Again: {command_text(['python', *words])}"
    try:
        # An exception here, such as of a signal, ends the process too.
        code = subprocess.run([sys.executable, *words], env=environment(), check=False).returncode
    except StoppedRun as end:
        print(f"{end.message}: no report, and the run is whole. {again}", file=sys.stderr)
        return
    if code:
        what = "lacks a part, see above" if code == 1 else "could not be made"
        print(f"WARNING: the report {what}. {again}", file=sys.stderr)


def _best_line(kept: Checkpoints, table: Table | None) -> str:
    """Return the best score; beside a loss stands the accuracy that it came with."""
    line = f"best {kept.monitor} {_with_interval(kept.monitor, kept.best, table)}"
    if kept.monitor in ("val/loss", "val/loss_calibrated"):
        line += f", val/accuracy {_with_interval('val/accuracy', kept.best, table)}"
    return f"{line} in epoch {kept.best['epoch'] + 1}"


def _with_interval(name: str, scores: Mapping[str, float], table: Table | None) -> str:
    """Return a score, with its 95 % interval where it is a share of the table's pictures."""
    if not name.startswith("val/accuracy") or table is None:
        return f"{scores[name]:.4f}"
    n = len(table.labelled().target)
    low, high = wilson_interval(round(scores[name] * n), n)
    judges = f"{n} picture{'s'[: n != 1]}"
    return f"{scores[name]:.4f} ({low:.4f} to {high:.4f} on the {judges} it was chosen on)"


def _number(text: str) -> float | int | None:
    if not text:
        return None
    return int(text) if text.isdigit() else float(text)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(child) for key, child in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
