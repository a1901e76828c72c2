"""What may change when a run goes on, and what would make it another run."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from src.config_check import resolve
from src.hardware import full_precision

# Of data: where the pictures lie and how they are fetched. The fingerprint says what they are.
_FREE_DATA = ("root", "source", "num_workers", "on_bad_image")
_FIXED_TRAINER = (
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"),
    *("limit_train_batches", "limit_val_batches", "overfit_batches"),
    *("val_check_interval", "check_val_every_n_epoch", "callbacks", "sync_batchnorm"),
)
_FIXED_OPTIONS = ("seed_everything", "monitor", "monitor_mode")
# What a checkpoint's state can't be fitted to: another network, another optimizer or schedule.
_BOUND = ("model.net", "model.scheduler", "model.optimizer.class_path", "model.num_classes")
# How many pictures a step takes, and which: a place inside an epoch means nothing after a change.
_STEP_SIZE = ("data.batch_size", "data.sampling", "processes", "data", "trainer.overfit_batches")


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was when the run began.

    Attributes:
        name: the option, `data` for the pictures, or `processes`.
        text: what it was and is, for the user.
    """

    name: str
    text: str

    @property
    def impossible(self) -> bool:
        """Whether the checkpoint can't be gone on from with it at all."""
        return self.name.startswith(_BOUND)

    @property
    def moves_batches(self) -> bool:
        """Whether it changes which pictures the n-th batch of an epoch holds."""
        return self.name in _STEP_SIZE

    @property
    def sets_rates(self) -> bool:
        """Whether it changes a setting of the optimizer, which the checkpoint holds too."""
        return self.name.startswith("model.optimizer.")


def changes(
    stored: Mapping[str, Any],
    config: Mapping[str, Any],
    record: Mapping[str, Any],
    now: Mapping[str, Any],
) -> list[Change]:
    """Return what breaks the exactness of a run that goes on.

    Args:
        stored: The config that the run began with.
        config: The config it is to go on with.
        record: run.json.
        now: The same facts of today: `processes`, `device`, and `fingerprint` of the data.
    """
    found = [
        Change(name, f"{name} is {new!r} and was {old!r}")
        for name, (old, new) in _differences(_fixed(stored), _fixed(config)).items()
        if not _came_later(name, stored)
    ]
    facts = {**record, "fingerprint": (record.get("data") or {}).get("fingerprint")}
    for name in ("processes", "device"):
        if facts.get(name, now[name]) != now[name]:
            found.append(Change(name, f"{name} is {now[name]!r} and was {facts[name]!r}"))
    if facts["fingerprint"] not in (None, now["fingerprint"]):
        text = f"the data have changed since the run began (fingerprint {now['fingerprint'][:12]}"
        found.append(Change("data", f"{text}, then {facts['fingerprint'][:12]})"))
    return found + _longer(stored, config)


def _came_later(name: str, stored: Mapping[str, Any]) -> bool:
    """Return whether an option did not exist yet when the run began."""
    section, _, option = name.partition(".")
    inside = stored.get(section) if option else stored
    return isinstance(inside, Mapping) and (option or section).split(".")[0] not in inside


def _longer(stored: Mapping[str, Any], config: Mapping[str, Any]) -> list[Change]:
    """Return the change of the run's length, where a schedule depends on it."""
    spec = (stored.get("model") or {}).get("scheduler")
    lengths = [
        tuple((c.get("trainer") or {}).get(name) for name in ("max_epochs", "max_steps"))
        for c in (stored, config)
    ]
    if not spec or lengths[0] == lengths[1] or not _takes_total(spec):
        return []
    name = "trainer.max_epochs" if lengths[0][0] != lengths[1][0] else "trainer.max_steps"
    old, new = ((c.get("trainer") or {}).get(name.split(".")[1]) for c in (stored, config))
    return [
        Change(
            name,
            f"{name} is {new!r} and was {old!r}, and {spec['class_path']} depends on the number of "
            "steps",
        )
    ]


def _takes_total(spec: Mapping[str, Any]) -> bool:
    found = resolve(str(spec["class_path"]), "model.scheduler")
    fixed = (spec.get("init_args") or {}).get("total_steps") is not None
    return found is not None and not fixed and "total_steps" in inspect.signature(found).parameters


def _fixed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a config that the numbers of a run depend on, flat."""
    trainer, data = config.get("trainer") or {}, config.get("data") or {}
    part = {
        **{name: config.get(name) for name in _FIXED_OPTIONS},
        "model": config.get("model"),
        "data": {k: v for k, v in data.items() if k not in _FREE_DATA},
        "trainer": {
            "precision": full_precision(trainer.get("precision")),
            **{name: trainer.get(name) for name in _FIXED_TRAINER},
        },
    }
    return dict(_flat(part, ""))


def _flat(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, child in node.items():
            yield from _flat(child, f"{name}.{key}".lstrip("."))
    else:
        yield name, node


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys([*old, *new])
    return {n: (old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)}
