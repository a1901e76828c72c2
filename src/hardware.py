"""Whether this machine has the devices and the number formats that the config asks for."""

import os
from typing import Any

import torch

from src.errors import UserError

_PROCESSES_PER_CORE = 4
_CPU_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "64-true")


def check(trainer: Any) -> None:
    """Raise UserError for devices or a precision that this machine lacks.

    Args:
        trainer: The parsed `trainer` options.
    """
    accelerator = str(trainer.accelerator)
    gpus = torch.cuda.device_count()
    if accelerator in ("gpu", "cuda") and not gpus and not torch.backends.mps.is_available():
        raise UserError(
            f"--trainer.accelerator {accelerator}: this machine has no GPU that torch can use. "
            "Allowed: cpu, or auto, which takes what there is."
        )
    on_gpu = accelerator in ("gpu", "cuda", "auto") and gpus > 0
    wanted = _number_of_devices(trainer.devices)
    if on_gpu and wanted > gpus:
        raise UserError(
            f"--trainer.devices {trainer.devices}: this machine has {gpus} GPU(s). Allowed: 1 to "
            f"{gpus}, or auto."
        )
    most = _PROCESSES_PER_CORE * (os.cpu_count() or 1)
    if not on_gpu and wanted > most:
        raise UserError(
            f"--trainer.devices {trainer.devices}: on a CPU that is the number of processes, and "
            f"this machine has {os.cpu_count()} core(s). Allowed: 1 to {most}."
        )
    _check_precision(str(trainer.precision), on_gpu)


def _number_of_devices(devices: Any) -> int:
    """Return how many devices a count, a list of them, or their text form names; auto is 0."""
    if isinstance(devices, str) and "," in devices:
        devices = [number for number in devices.split(",") if number.strip()]
    if isinstance(devices, int):
        return max(devices, 0)
    if isinstance(devices, (list, tuple)):
        return max((int(d) + 1 for d in devices), default=0)
    return int(devices) if str(devices).isdigit() else 0


def full_precision(precision: Any) -> str:
    """Return the full name of a precision: 32-true for 32 and for None."""
    names = {"None": "32-true", "32": "32-true", "64": "64-true"}
    names |= {"16": "16-mixed", "bf16": "bf16-mixed"}
    return names.get(str(precision), str(precision))


def _check_precision(precision: str, on_gpu: bool) -> None:
    full = full_precision(precision)
    on_cpu = not on_gpu and not torch.backends.mps.is_available()
    if on_cpu and full not in _CPU_PRECISIONS:
        raise UserError(
            f"--trainer.precision {precision}: a CPU can't do that. Allowed here: "
            f"{', '.join(_CPU_PRECISIONS)}."
        )
    if on_gpu and full.startswith("bf16") and not torch.cuda.is_bf16_supported():
        raise UserError(
            f"--trainer.precision {precision}: this GPU has no bfloat16. "
            "Allowed: 32-true, 16-mixed."
        )
