"""Whether this machine has the devices and the number formats that the config asks for."""

import os
import platform
from collections.abc import Mapping
from typing import Any

import torch

from src.errors import UserError

_PROCESSES_PER_CORE = 4
_CPU_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "64-true")
# launcher -> option of ours -> its variable, its flag, what they count
_STARTED = {
    "torchrun": {
        "devices": ("LOCAL_WORLD_SIZE", "--nproc-per-node", "process(es) on a machine"),
        "num_nodes": ("GROUP_WORLD_SIZE", "--nnodes", "machine(s)"),
    },
    "SLURM": {
        "devices": ("SLURM_NTASKS_PER_NODE", "--ntasks-per-node", "process(es) on a machine"),
        "num_nodes": ("SLURM_NNODES", "--nodes", "machine(s)"),
    },
}


def check(trainer: Any) -> None:
    """Raise UserError for devices or a precision that this machine lacks, or a launcher denies.

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
    wanted = _needed(trainer.devices)
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
    check_launch(trainer, _used(trainer.devices, gpus if on_gpu else 1))


def _listed(devices: Any) -> list[int] | int | None:
    """Return the devices that are named one by one, or their number; None for all of them."""
    if isinstance(devices, str) and "," in devices:
        devices = [number for number in devices.split(",") if number.strip()]
    if isinstance(devices, (list, tuple)):
        return [int(number) for number in devices]
    if str(devices) in ("auto", "-1"):
        return None
    return int(devices) if str(devices).isdigit() else 0  # Lightning refuses it


def _needed(devices: Any) -> int:
    """Return how many devices the machine must have; 0 for all of them."""
    listed = _listed(devices)
    return max(listed, default=-1) + 1 if isinstance(listed, list) else listed or 0


def _used(devices: Any, all_of_them: int) -> int:
    """Return how many devices are used, and so the number of processes on each machine."""
    listed = _listed(devices)
    return all_of_them if listed is None else len(listed) if isinstance(listed, list) else listed


def check_launch(trainer: Any, devices: int, env: Mapping[str, str] | None = None) -> None:
    """Raise UserError if torchrun or SLURM started other processes than the config says.

    Lightning compares no more than their product, or waits for processes that nobody starts.

    Args:
        trainer: The parsed `trainer` options.
        devices: Processes of each machine, by the config.
        env: The environment; None means this process's own.
    """
    env = os.environ if env is None else env
    launcher = _launcher(env)
    wanted = {"devices": devices, "num_nodes": trainer.num_nodes}
    for option, (variable, flag, unit) in _STARTED.get(launcher, {}).items():
        started = env.get(variable, "1" if env.get("SLURM_NTASKS") == "1" else None)
        if started is None:
            raise UserError(
                f"{launcher} does not say how many {unit} it started. Write {flag} "
                f"{wanted[option]} into the script instead of --ntasks."
            )
        if int(started) != wanted[option]:
            raise UserError(
                f"--trainer.{option} {getattr(trainer, option)}: {launcher} started {started} "
                f"{unit}. Give --trainer.{option} {started}, or {flag} {wanted[option]}."
            )


def _launcher(env: Mapping[str, str]) -> str:
    """Return who started this process beside others; empty if nobody did."""
    if "TORCHELASTIC_RUN_ID" in env:
        return "torchrun"
    by_hand = env.get("SLURM_JOB_NAME") in ("bash", "interactive")  # Lightning's rule as well
    return "SLURM" if "SLURM_NTASKS" in env and not by_hand else ""


def full_precision(precision: Any) -> str:
    """Return the full name of a precision: 32-true for 32 and for None."""
    names = {"None": "32-true", "32": "32-true", "64": "64-true"}
    names |= {"16": "16-mixed", "bf16": "bf16-mixed"}
    return names.get(str(precision), str(precision))


def slow_precision(precision: Any, device: torch.device) -> str:
    """Return a sentence if a precision is slower than fp32 on this processor, else nothing.

    Args:
        precision: As for `trainer.precision`.
        device: Where the training will run.
    """
    if device.type != "cpu" or not full_precision(precision).startswith("bf16"):
        return ""
    if platform.machine().lower() not in ("x86_64", "amd64") or has_avx512():
        return ""
    return (
        f"--trainer.precision {precision}: this processor has no AVX-512, so bf16 is emulated and "
        "several times slower than fp32. Take 32-true; python -m src.bench --probe measures it."
    )


def has_avx512() -> bool:
    """Return whether torch uses AVX-512 here, which its bf16 on x86 processors is made for."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


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
