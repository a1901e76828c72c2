"""What may change when a run goes on, and what would make it another run."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from src.config_check import flat, resolve
from src.hardware import full_precision

# Of data: where the pictures lie and how they are fetched. The fingerprint says what they are.
_FREE_DATA = ("root", "source", "num_workers", "on_bad_image", "on_leak", "cache")
_FIXED_TRAINER = (
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"),
    *("limit_train_batches", "limit_val_batches", "overfit_batches"),
    *("val_check_interval", "check_val_every_n_epoch", "callbacks", "sync_batchnorm"),
    *("plugins", "deterministic", "benchmark"),
)
_LENGTHS = ("max_epochs", "max_steps")  # free, unless something spans them
_FIXED_OPTIONS = ("seed_everything", "monitor", "monitor_mode")
# What a checkpoint's state can't be fitted to: another network, another optimizer or schedule.
_BOUND = (
    *("model.net", "model.scheduler", "model.optimizer.class_path", "model.num_classes"),
    "model.layer_decay",
)
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


def made_with(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the numbers of a run depend on, flat; each checkpoint holds it.

    Args:
        config: The config, as it is stored.
        facts: `processes`, `device`, `strategy`, and `data`: the fingerprint of the pictures.
    """
    trainer, data = config.get("trainer") or {}, config.get("data") or {}
    part = {
        **{name: config.get(name) for name in _FIXED_OPTIONS},
        "model": config.get("model"),
        "data": {k: v for k, v in data.items() if k not in _FREE_DATA},
        "trainer": {
            "precision": full_precision(trainer.get("precision")),
            **{name: trainer.get(name) for name in (*_FIXED_TRAINER, *_LENGTHS)},
        },
    }
    return {**dict(flat(part)), **facts}


def changes(
    old: Mapping[str, Any], new: Mapping[str, Any], scheduler: Mapping[str, Any] | None
) -> list[Change]:
    """Return what breaks the exactness of a run that goes on.

    Args:
        old: What the checkpoint was made with.
        new: What the run is to go on with.
        scheduler: Its schedule, as the config names it.
    """
    names = [n for n in dict.fromkeys([*old, *new]) if old.get(n) != new.get(n)]
    names = [n for n in names if not _came_later(n, old) and not _follows(n, names)]
    names = [n for n in names if n in old or not _is_default(n, new)]
    spanning = _spanning(scheduler, new.get("trainer.callbacks"))
    free = () if spanning else _LENGTHS
    return [
        Change(name, _text(name, old.get(name), new.get(name), spanning))
        for name in names
        if name.removeprefix("trainer.") not in free
    ]


def _text(name: str, old: Any, new: Any, spanning: str | None) -> str:
    if name == "data":
        return f"the data have changed (fingerprint {new[:12]}, then {old[:12]})"
    why = ""
    if name.removeprefix("trainer.") in _LENGTHS:
        why = f", and {spanning} depends on the number of steps"
    return f"{name} is {new!r} and was {old!r}{why}"


def _spanning(scheduler: Mapping[str, Any] | None, callbacks: Any) -> str | None:
    """Return the class path of what is laid out over the whole run; None if nothing is."""
    if scheduler and _takes_total(scheduler):
        return str(scheduler["class_path"])
    for spec in callbacks or ():
        name = str(spec.get("class_path") if isinstance(spec, Mapping) else spec)
        if getattr(resolve(name, "trainer.callbacks"), "spans_the_run", False):
            return name
    return None


def _came_later(name: str, old: Mapping[str, Any]) -> bool:
    """Return whether an option did not exist yet when the checkpoint was written."""
    option = ".".join(name.split(".")[:2])
    return not any(known == option or known.startswith(f"{option}.") for known in old)


def _is_default(name: str, new: Mapping[str, Any]) -> bool:
    """Return whether an argument has the value that its class gives it.

    Where it was not named before, it had that value, or did not exist yet.
    """
    owner, inside, argument = name.rpartition(".init_args.")
    class_path = new.get(f"{owner}.class_path")
    if not inside or not class_path:
        return False
    found: Any = resolve(str(class_path), owner)
    try:
        parameter = inspect.signature(found).parameters[argument]
    except (TypeError, ValueError, KeyError):
        return False
    default, value = parameter.default, new.get(name)
    return bool((list(default) if isinstance(default, tuple) else default) == value)


def _follows(name: str, names: Sequence[str]) -> bool:
    """Return whether an argument changed because its class did."""
    owner, inside, _ = name.partition(".init_args")
    return bool(inside) and f"{owner}.class_path" in names


def _takes_total(spec: Mapping[str, Any]) -> bool:
    found = resolve(str(spec["class_path"]), "model.scheduler")
    fixed = (spec.get("init_args") or {}).get("total_steps") is not None
    return found is not None and not fixed and "total_steps" in inspect.signature(found).parameters
