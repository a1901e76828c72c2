"""Going on with a run: whether it is still the same one, and what is told and noted if not."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.callbacks import WeightAveraging

from src import checkpoint
from src.drift import Change, changes, made_with
from src.errors import UserError
from src.loop.warm_start import ConfiguredRates
from src.resume import set_aside
from src.run import versions, write_json, write_text
from src.run_rules import Plan


def facts(trainer: Any) -> dict[str, Any]:
    """Return what the Trainer makes of its options, where the numbers of a run depend on it."""
    processes = trainer.num_devices * trainer.num_nodes
    return {
        "processes": processes,
        "device": trainer.strategy.root_device.type,
        "strategy": type(trainer.strategy).__name__ if processes > 1 else None,
    }


def settle_drift(
    trainer: Any, config: Mapping[str, Any], fingerprint: str, path: Path | None, allowed: bool
) -> list[str]:
    """Let the checkpoints say what they are made with; return what is not as it was before.

    Args:
        trainer: Of the fit; it gets what an allowed change needs.
        config: The config, as it is stored.
        fingerprint: Of the pictures.
        path: The checkpoint to go on from; None to start anew.
        allowed: Whether --allow_drift was given.

    Raises:
        UserError: if something has changed that may not.
    """
    now = made_with(config, {**facts(trainer), "data": fingerprint})
    for callback in trainer.checkpoint_callbacks:
        callback.made_with = now
    if path is None:
        return []
    content = checkpoint.read_checkpoint(path)
    _check_average(path, content, trainer)
    drift = _check(path, content, now, config["model"]["scheduler"], allowed)
    trainer.callbacks += [ConfiguredRates()] if any(c.sets_rates for c in drift) else []
    texts = [change.text for change in drift]
    if drift and trainer.is_global_zero:
        print(f"WARNING: going on with changes: {'; '.join(texts)}", file=sys.stderr)
    return texts


def _check(
    path: Path,
    content: dict[str, Any],
    now: Mapping[str, Any],
    scheduler: Mapping[str, Any] | None,
    allowed: bool,
) -> list[Change]:
    """Return what has changed since a checkpoint was written, if that was allowed.

    Args:
        path: The checkpoint to go on from.
        content: Its contents.
        now: What the run is to go on with: see `src.drift.made_with`.
        scheduler: Its schedule, as the config names it.
        allowed: Whether --allow_drift was given.

    Raises:
        UserError: if it was not, or if the checkpoint can't be gone on from that way.
    """
    found = changes(content.get("made_with", {}), now, scheduler)
    impossible = [change for change in found if change.impossible]
    if found and checkpoint.inside_epoch(content):
        impossible += [change for change in found if change.moves_batches] if allowed else []
    if impossible or (found and not allowed):
        way = "" if impossible else "go on all the same with --allow_drift true, "
        text = "; ".join(change.text for change in (impossible or found))
        raise UserError(
            f"{path}: a run goes on as it began, and {text}. Undo that, {way}or train on in a new "
            f"run: --init_from {path}."
        )
    return found


def _check_average(path: Path, content: Mapping[str, Any], trainer: Any) -> None:
    """Raise UserError if nothing goes on with the average that a checkpoint holds.

    Its `state_dict` is that average, and its optimizer state is of other weights.
    """
    averages = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)
    if "current_model_state" in content and not averages:
        raise UserError(
            f"{path} holds averaged weights, and no callback goes on averaging. Keep callbacks.EMA "
            "in trainer.callbacks (decay: 0 ends its work), or train on from the average in a new "
            f"run: --init_from {path}."
        )


def go_on(plan: Plan, config: Mapping[str, Any], drift: list[str]) -> None:
    """Tell and note what is not as it was, in the folder of a run that goes on.

    Args:
        plan: With the run folder.
        config: The config to go on with.
        drift: What has changed and was allowed to.
    """
    assert plan.folder is not None and plan.checkpoint is not None
    folder = plan.folder
    for line in plan.damage:
        print(f"WARNING: {line} Going on from {plan.checkpoint.name}.", file=sys.stderr)
    set_aside(folder, plan.checkpoint)
    record = folder.read_record()
    if drift:
        write_json(folder.record, {**record, "drift": [*record.get("drift", []), drift]})
    _tell_versions(record)
    text = yaml.safe_dump(dict(config), sort_keys=False)
    if text != folder.newest_config.read_text("utf-8"):
        write_text(folder.next_config, text)


def _tell_versions(record: Mapping[str, Any]) -> None:
    old, new = record.get("versions") or {}, versions()
    changed = [f"{n} {old[n]} -> {new[n]}" for n in old if n in new and old[n] != new[n]]
    threads = record.get("threads", torch.get_num_threads())
    if threads != torch.get_num_threads():
        changed.append(f"threads {threads} -> {torch.get_num_threads()}")
    if changed:
        print(
            f"WARNING: since the run began: {', '.join(changed)}. It goes on; its last bits may "
            "differ from what they would have been.",
            file=sys.stderr,
        )
