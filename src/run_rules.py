"""Which run folder and which checkpoint a command line means; nothing is written here."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only

from src.config_check import read_config
from src.errors import UserError
from src.resume import newest_whole
from src.run import RunFolder, new_run_path
from src.trust import Origin, check_names, check_stored_config

COMMANDS = ("fit", "validate", "test", "predict")
DEFAULT_EPOCHS = 10
RUN_DIR = "WAGGLE_RUN_DIR"  # the launching process settles the folder for its children


@dataclass(frozen=True)
class Plan:
    """What a command works on.

    Attributes:
        folder: the run folder; None under fast_dev_run, which keeps nothing.
        checkpoint: the file to go on from or to score; None to start anew.
        resumes: whether fit goes on with the run that lies in the folder.
        damage: what is wrong with last.ckpt, if another one is gone on from.
    """

    folder: RunFolder | None
    checkpoint: Path | None
    resumes: bool = False
    damage: tuple[str, ...] = ()


def option_values(args: Sequence[str], *names: str) -> list[str]:
    """Return the values that `--name value` or `--name=value` give, in order."""
    values = []
    for number, word in enumerate(args):
        name, equals, value = word.partition("=")
        if name in names and equals:
            values.append(value)
        elif name in names:
            values += args[number + 1 : number + 2]
    return values


def with_values(args: Sequence[str]) -> list[str]:
    """Return the words of a command line, with the value of a `--find_lr` that has none."""
    follow = [*args[1:], "--"][: len(args)]
    return [
        f"{word}=stop" if word == "--find_lr" and follows.startswith("-") else word
        for word, follows in zip(args, follow, strict=True)
    ]


def without_option(args: Sequence[str], name: str) -> list[str]:
    """Return the words of a command line without an option and its value."""
    follows = [False, *(word == name for word in args)]
    return [
        word
        for word, is_value in zip(args, follows, strict=False)
        if not is_value and word != name and not word.startswith(f"{name}=")
    ]


def settle_length(trainer: Any) -> None:
    """Give a run of no stated length DEFAULT_EPOCHS epochs.

    Args:
        trainer: The parsed `trainer` options; max_epochs may be set.
    """
    if trainer.max_epochs is None:
        ends_otherwise = trainer.max_steps != -1 or trainer.max_time is not None
        trainer.max_epochs = -1 if ends_otherwise else DEFAULT_EPOCHS


def check_trainer(trainer: Any, from_shell: bool) -> None:
    """Raise UserError for options of Lightning's that would break what a run promises.

    Args:
        trainer: The parsed `trainer` options.
        from_shell: Whether this process was started with the command line that is carried out.
    """
    devices = trainer.devices
    several = len(devices) > 1 if isinstance(devices, list) else devices not in ("auto", "1", 1)
    if several and "LOCAL_RANK" not in os.environ and not from_shell:
        raise UserError(
            f"--trainer.devices {trainer.devices}: Lightning starts the other processes with the "
            "command line of this one, so several devices need `python -m src.train ...` from a "
            "shell, not main([...]) from Python."
        )
    if trainer.use_distributed_sampler:
        raise UserError(
            "--trainer.use_distributed_sampler true: the order and the shards are computed from "
            "(seed, epoch) here, and Lightning's sampler would break resume and scores. Drop it."
        )
    for name in ("val_check_interval", "check_val_every_n_epoch", "accumulate_grad_batches"):
        value = getattr(trainer, name)
        if value is not None and not isinstance(value, (str, dict)) and value <= 0:
            raise UserError(f"--trainer.{name} is {value}; it must be above 0.")
    launched = {"TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "MASTER_ADDR"} & set(os.environ)
    if trainer.num_nodes > 1 and not launched:
        raise UserError(
            f"--trainer.num_nodes {trainer.num_nodes}: start it with torchrun or SLURM on every "
            "machine, or set it to 1."
        )
    if trainer.default_root_dir is not None:
        raise UserError(
            f"--trainer.default_root_dir {trainer.default_root_dir}: everything of a run goes into "
            "its run folder. Give --run_dir DIR instead."
        )


def with_stored_config(args: list[str], scratch: Path) -> list[str]:
    """Put the run folder's own config before the words of the command line, where it is needed.

    fit takes it to go on with a run, unless its words are the whole command that began the run:
    with a --config, or with a list that they append to. The other commands always take it, since
    the run folder is all that they need.

    Args:
        args: The words of the command line.
        scratch: An empty folder for the part of the config that is used.

    Raises:
        UserError: if the command needs a run folder and has none, or the folder's config names
            code that nobody vouched for.
    """
    command = next((word for word in args if word in COMMANDS), None)
    if command is None or {"-h", "--help"} & set(args):
        return args
    named = option_values(args, "--run_dir")
    checkpoints = option_values(args, "--ckpt_path")
    if command == "fit":
        goes_on = named and checkpoints and checkpoints[-1] in ("last", "auto")
        whole = option_values(args, "--config", "-c") or any(_appends(word) for word in args)
        if not goes_on or whole:
            return args
        folder = RunFolder(named[-1])
        if checkpoints[-1] == "auto" and not folder.config.is_file():
            return args
        stored = read_stored(folder.require())
    else:
        folder = _run_to_use(command, named, checkpoints)
        if not named:
            args = [*args, "--run_dir", str(folder.path)]
        stored = _for_scoring(read_stored(folder))
    prefixes = tuple(option_values(args, "--trust_code"))
    check_names(stored, Origin(str(folder.newest_config), prefixes=prefixes, folder=scratch))
    file = scratch / folder.config.name
    file.write_text(yaml.safe_dump(stored, sort_keys=False), "utf-8")
    place = args.index(command) + 1
    return [*args[:place], "--config", str(file), *args[place:]]


def _appends(word: str) -> bool:
    """Return whether an option adds to a list: `--trainer.callbacks+=NAME`, `--x+ NAME`."""
    return word.startswith("--") and word.partition("=")[0].endswith("+")


def read_stored(folder: RunFolder) -> dict[str, Any]:
    """Return the config of a run folder; raise UserError if it sets what is never stored."""
    stored = read_config(folder.newest_config)
    check_stored_config(stored, Origin(str(folder.newest_config)))
    return stored


def _run_to_use(command: str, named: list[str], checkpoints: list[str]) -> RunFolder:
    if named:
        return RunFolder(named[-1]).require()
    beside = [Path(name).absolute().parent.parent for name in checkpoints]
    for path in beside:
        if (path / "config.yaml").is_file():
            return RunFolder(path)
    raise UserError(f"{command} needs a run: give --run_dir RUN, the folder that fit printed.")


def _for_scoring(stored: dict[str, Any]) -> dict[str, Any]:
    """Keep what scores depend on; devices, loggers and callbacks were the training's."""
    kept: dict[str, Any] = {
        key: stored[key] for key in ("seed_everything", "model", "data") if key in stored
    }
    precision = (stored.get("trainer") or {}).get("precision")
    return {**kept, "trainer": {"logger": False, "devices": 1, "precision": precision}}


def plan_command(command: str, options: Any, env: dict[str, str] | None = None) -> Plan:
    """Return what the command works on.

    Args:
        command: fit, validate, test or predict.
        options: The parsed options.
        env: The environment; None means this process's own.

    Raises:
        UserError: for a folder that already holds a run, a checkpoint that is not there.
    """
    if command != "fit":
        folder = RunFolder(options.run_dir).require()
        name = options.ckpt_path
        return Plan(folder, folder.checkpoint(name) if name else folder.best_or_last())
    name = options.ckpt_path
    if name in ("best", "previous", ""):
        raise UserError(
            f"--ckpt_path {name!r}: fit goes on with `last`, with `auto` (the same if there is "
            "one, else a new run), or with a .ckpt file in a new folder. Best weights start a new "
            "run by --init_from."
        )
    if options.trainer.fast_dev_run:
        outside = name not in (None, "auto", "last")
        return Plan(None, RunFolder(".").checkpoint(name) if outside else None)
    if name in ("auto", "last") and not options.run_dir:
        raise UserError(
            f"--ckpt_path {name} goes on with a run: give its folder, --run_dir RUN. Without one "
            "every start gets a new folder."
        )
    return _plan_fit(_folder_for_fit(options, dict(os.environ) if env is None else env), name)


def _plan_fit(folder: RunFolder, name: str | None) -> Plan:
    if name == "last" or (name == "auto" and folder.begun):
        if not folder.require().begun:
            folder.checkpoint("last")  # raises, and lists what there is
        path, damage = newest_whole(folder)
        return Plan(folder, path, resumes=True, damage=tuple(damage))
    # Only the first process asks: the others may come when it has made the folder.
    if not getattr(rank_zero_only, "rank", 0):
        folder.require_free(but_for_a_start=name == "auto")
    return Plan(folder, folder.checkpoint(name) if name not in (None, "auto") else None)


def _folder_for_fit(options: Any, env: dict[str, str]) -> RunFolder:
    if options.run_dir:
        return RunFolder(options.run_dir)
    if "LOCAL_RANK" in env and RUN_DIR in env:
        return RunFolder(env[RUN_DIR])
    if "TORCHELASTIC_RUN_ID" in env or int(env.get("SLURM_NTASKS", "1")) > 1:
        raise UserError(
            "under torchrun and SLURM every process must know the run folder: give --run_dir DIR."
        )
    first = options.config[0] if options.config else None
    return RunFolder(new_run_path(Path(str(first)) if first else None))


def own_data(command: str, plan: Plan, options: Any, args: Sequence[str]) -> Path | None:
    """Return samples.csv if the run's own splits are to be scored; None for other data.

    A relative root that is not there any more is replaced by the place it had at the start.

    Args:
        command: validate, test or predict.
        plan: What the command works on.
        options: The parsed options; data.root may be changed.
        args: The words of the command line.
    """
    assert plan.folder is not None
    folder = plan.folder
    record = folder.read_record().get("data", {})
    own = Path(record.get("root", ""))
    given = option_values(args, "--data.root")
    if not given:
        root = options.data.root
        if root and not Path(root).exists() and record.get("root") and own.exists():
            options.data.root = str(own)
        return folder.samples
    split = "val" if command == "validate" else "test"
    root = Path(given[-1])
    is_own = root.exists() and own.exists() and root.resolve() == own.resolve()
    if command == "predict" or not is_own or (root / split).is_dir():
        return None
    return folder.samples


def check_samples(folder: RunFolder) -> None:
    """Raise UserError if samples.csv of the run folder is missing or was cut."""
    if not folder.samples.is_file():
        raise UserError(f"{folder.samples} is missing. Bring it back.")
    counts = folder.read_record().get("data", {}).get("counts", {})
    expected = sum(sum(part.values()) for part in counts.values())
    with folder.samples.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        hashes = [
            row.get("hash") or "" for row in csv.DictReader(file) if row.get("split") != "skipped"
        ]
    found = len(hashes)
    if counts and found != expected:
        raise UserError(
            f"{folder.samples} is damaged: it lists {found} pictures and the run began with "
            f"{expected}. Bring it back."
        )
    if len({len(content) for content in hashes}) > 1:
        raise UserError(f"{folder.samples} is damaged: a hash in it was cut. Bring it back.")
