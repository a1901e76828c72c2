"""Whether two runs are the same, to the byte: checkpoints and metrics.csv, but for the clock."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from src.checkpoint import read_checkpoint
from src.run import RunFolder

# Of a checkpoint: what a clock says, and the name of the run, which is drawn anew for each.
CLOCK = ("seconds", "images_per_second", "time_elapsed", "run_id")


@dataclass(frozen=True)
class Comparison:
    """What was found between two runs.

    Attributes:
        tensors: How many tensors of the first run were compared.
        rows: How many rows of its metrics.csv were.
        different: A line for each thing that is not the same, empty if there is none.
    """

    tensors: int
    rows: int
    different: tuple[str, ...]


def compare_runs(one: RunFolder, other: RunFolder) -> Comparison:
    """Compare last.ckpt, best.ckpt and metrics.csv of two runs that are over.

    Raises:
        UserError: if last.ckpt of one of them is missing, or any file is damaged.
    """
    tensors, different = 0, []
    for path, twin in ((one.last, other.last), (one.best, other.best)):
        if path == one.best and path.is_file() != twin.is_file():
            different.append(f"{path.name} is in one of them alone")
        elif path == one.last or path.is_file():
            mine, theirs = read_checkpoint(path), read_checkpoint(twin)
            tensors += count_tensors(mine)
            different += differences(mine, theirs, path.stem)
    rows, others = rows_of(one.metrics), rows_of(other.metrics)
    different += differences(rows, others, "metrics.csv")
    return Comparison(tensors, len(rows), tuple(different))


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Return a line for each name under which two nested values differ, but for the clock.

    Tensors are the same if type, shape and every byte are; numbers if type and value are.

    Args:
        one: Dictionaries, lists and tuples of tensors and plain values.
        other: The same.
        name: Of the whole.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [line for pair in _members(one, other, name) for line in pair]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return [f"{name}: {len(one)} and {len(other)} entries"]
        pairs = enumerate(zip(one, other, strict=True))
        return [line for n, (a, b) in pairs for line in differences(a, b, f"{name}[{n}]")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return _tensor_differences(one, other, name)
    return [] if _same_value(one, other) else [f"{name}: {one!r} and {other!r}"]


def _members(one: Mapping[Any, Any], other: Mapping[Any, Any], name: str) -> Iterator[list[str]]:
    for key in {**one, **other}:
        path = f"{name}.{key}" if name else str(key)
        if key in CLOCK:
            continue
        if key in one and key in other:
            yield differences(one[key], other[key], path)
        else:
            yield [f"{path} is in one of them alone"]


def _tensor_differences(one: torch.Tensor, other: torch.Tensor, name: str) -> list[str]:
    if one.dtype != other.dtype or one.shape != other.shape:
        kinds = [f"{t.dtype} {list(t.shape)}" for t in (one, other)]
        return [f"{name}: {kinds[0]} and {kinds[1]}"]
    differ = (_bytes(one) != _bytes(other)).any(dim=1)
    number = int(differ.sum())
    return [f"{name}: {number} of {len(differ)} values"] if number else []


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of each value, [values, bytes]; a value that is no number has some too."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).reshape(len(flat), flat.element_size())


def _same_value(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    return bool(one == other) or bool(one != one and other != other)  # NaN is itself here


def count_tensors(node: Any) -> int:
    """Return how many tensors lie in nested dictionaries, lists and tuples."""
    if isinstance(node, torch.Tensor):
        return 1
    inside = node.values() if isinstance(node, Mapping) else node
    is_nest = isinstance(node, (Mapping, list, tuple))
    return sum(count_tensors(child) for child in inside) if is_nest else 0


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics.csv; the columns of the clock are passed over in comparing."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
