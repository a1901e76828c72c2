"""Runs that differ in their seed alone: whether they do, and what came out of them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from src.config_check import flat, read_config
from src.errors import UserError
from src.run import RunFolder, write_text
from src.scored import COMMANDS, is_stale
from src.spread import spread

PLAN, LOCK = "plan.yaml", "lock"
SCORES = ("accuracy", "loss")
_HIGHEST = {"accuracy": 1.0, "loss": math.inf}
# What no result depends on: where the data lie, how they are fetched, who is told.
_FREE = (
    *("data.root", "data.num_workers", "data.cache", "trainer.logger"),
    *("progress", "trust_code", "seed_everything"),
)

# The plan


def plan_of(configs: Sequence[Path], words: Sequence[str]) -> dict[str, Any]:
    """Return what is repeated, as plain data.

    Args:
        configs: The config files.
        words: The other options of fit.

    Raises:
        UserError: for a config that can't be read.
    """
    return {
        "configs": [read_config(path) for path in configs],
        "options": [list(pair) for pair in options_of(words)],
    }


def options_of(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return name and value of each option, written as `--name value` or `--name=value`."""
    pairs: list[tuple[str, str]] = []
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            pairs.append((name, value))
        elif pairs and not pairs[-1][1]:
            pairs[-1] = (pairs[-1][0], word)
        else:
            pairs.append((word, ""))
    return pairs


def keep_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    """Write the plan into a free folder, or check that it is the one that lies there.

    Raises:
        UserError: if something else lies there.
    """
    path = folder / PLAN
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or _is_used(folder)):
            raise UserError(f"--out {folder} is not free. Give a folder that does not exist yet.")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, yaml.safe_dump(dict(plan), sort_keys=False))
        return
    try:
        old = _named(yaml.safe_load(path.read_text("utf-8")))
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error}. Bring it back.") from error
    if found := differences(old, _named(plan)):
        raise UserError(
            f"{folder} holds runs of another plan: {'; '.join(found)}. Undo that, or give another "
            "folder: --out DIR."
        )


def _is_used(folder: Path) -> bool:
    return any(path.name != LOCK for path in folder.iterdir())


def _named(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan as flat names and values, without what no result depends on."""
    configs = plan["configs"]
    found: dict[str, Any] = {}
    for number, config in enumerate(configs, start=1):
        file = f"config {number}: " if len(configs) > 1 else ""
        found |= {f"{file}{name}": value for name, value in settings(config).items()}
    for name, value in plan["options"]:
        if not _is_free(name.removeprefix("--")):
            found[name] = f"{found[name]} {value}" if name in found else value
    return found


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as dotted names and values, without what no result depends on."""
    return {name: value for name, value in flat(config) if not _is_free(name)}


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in _FREE)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], before: str = "was") -> list[str]:
    """Return a line for each name under which two flat mappings differ.

    Args:
        old: The values before.
        new: The values now.
        before: What the line calls them.
    """
    names = dict.fromkeys([*old, *new])
    return [
        f"{name} is {_told(new, name)} and {before} {_told(old, name)}"
        for name in names
        if (name in old, old.get(name)) != (name in new, new.get(name))
    ]


def _told(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "not given"


# The runs


def scores_of(folder: RunFolder, split: str) -> dict[str, Any] | None:
    """Return what was found on a split with the run's best weights; None if nothing was.

    Args:
        folder: The run.
        split: val or test.
    """
    path = folder.path / f"{COMMANDS[split]}.json"
    try:
        found = json.loads(path.read_text("utf-8"))
        is_best = found["checkpoint"] == folder.best.name or not folder.best.is_file()
        is_best = is_best and not is_stale(folder.path, found)
        names = (*SCORES, *(f"{name}_interval" for name in SCORES), "n", "data_fingerprint")
        scores = {name: found[name] for name in names}
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return scores if is_best and path.with_suffix(".csv").is_file() else None


def result_of(folder: RunFolder, seed: int, splits: Sequence[str]) -> dict[str, Any]:
    """Return what came out of a run that is over and scored.

    Args:
        folder: The run.
        seed: Its seed.
        splits: Those it was scored on.
    """
    seconds = _summary(folder)["wall_seconds"]
    scores = {split: scores_of(folder, split) for split in splits}
    return {"seed": seed, "run_dir": folder.path.name, "wall_seconds": seconds, **scores}


def _summary(folder: RunFolder) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(folder.summary.read_text("utf-8"))
        return {name: found[name] for name in ("wall_seconds", "versions", "git_commit")}
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{folder.summary} is damaged ({type(error).__name__}: {error}). Remove it, and type "
            "the same line again."
        ) from error


def check_same_data(results: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> None:
    """Raise UserError if two runs were scored on different pictures."""
    first = results[0]
    for result in results[1:]:
        for split in splits:
            if result[split]["data_fingerprint"] != first[split]["data_fingerprint"]:
                raise UserError(
                    f"the {split} pictures of seed {result['seed']} are not those of seed "
                    f"{first['seed']}: the data have changed in between. Bring them back and "
                    f"remove {result['run_dir']}, or repeat in another folder: --out DIR."
                )


def unlike(folders: Mapping[int, RunFolder]) -> list[str]:
    """Return a line for each thing but the seed in which a run is not like the first one.

    Args:
        folders: The runs by seed.
    """
    facts = {seed: _facts(folder) for seed, folder in folders.items()}
    first = next(iter(facts.values()))
    return [
        f"seed {seed}: {line}"
        for seed, fact in facts.items()
        for line in differences(first, fact, before="in the first run")
    ]


def _facts(folder: RunFolder) -> dict[str, Any]:
    summary = _summary(folder)
    made_by = {f"version of {name}": text for name, text in summary["versions"].items()}
    return {**settings(read_config(folder.newest_config)), **made_by, "code": summary["git_commit"]}


# What is told


def spreads(results: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> dict[str, Any]:
    """Return {split: {score: mean, sd, min, max, interval}}."""
    return {
        split: {
            name: spread([result[split][name] for result in results], _HIGHEST[name])
            for name in SCORES
        }
        for split in splits
    }


def table(results: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> list[str]:
    """Return the lines for a terminal: a row for each run, and those that sum them up."""
    columns = [(split, name) for split in splits for name in SCORES]
    found = spreads(results, splits)
    rows = [["seed", *(f"{split} {name}" for split, name in columns), "seconds"]]
    for result in results:
        cells = [cell(result[split], name) for split, name in columns]
        rows.append([str(result["seed"]), *cells, f"{result['wall_seconds'] or 0:.0f}"])
    for row in ("mean", "sd", "min", "max", "interval"):
        cells = [_cell(found[split][name][row]) for split, name in columns]
        rows.append(["95 %" if row == "interval" else row, *cells, ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def cell(scores: Mapping[str, Any], name: str) -> str:
    """Return a score of a run as text, with its 95 % interval where it has one."""
    ends = scores.get(f"{name}_interval")
    return f"{scores[name]:.4f}" + (f" ({_cell(ends)})" if ends else "")


def _cell(value: float | Sequence[float] | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, (int, float)):
        return f"{value:.4f}"
    return f"{value[0]:.4f} to {value[1]:.4f}"
