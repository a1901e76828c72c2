"""What a new run settles by measuring, once, before its first step: workers, rate, epochs.

Rate and epochs are written into the config, and are from then on the config: neither a resume nor
another process of the run measures again.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from typing import Any

from src.best_net import is_open, take_net
from src.budget import Budget, seconds_after, seconds_to_validate
from src.classifier import Classifier
from src.config_check import read_config
from src.data import trial
from src.data.datamodule import DataModule
from src.data.workers import few, own_cores
from src.errors import RunFailureError, UserError
from src.find_lr import HIGHEST, LOWEST, as_csv, as_svg, range_test
from src.pace import Pace, measure
from src.run import RunFolder, write_text
from src.run_rules import Plan

SETTLED = "WAGGLE_SETTLED"  # for the processes that the Trainer starts
_LOOK = 0.01  # share of the minutes in which a step is timed
_TIMED = ("limit_train_batches", "limit_val_batches", "overfit_batches", "val_check_interval")


def check(options: Any, plan: Plan, env: Mapping[str, str]) -> None:
    """Raise UserError where nothing can be settled by a measurement.

    Args:
        options: The parsed options of fit.
        plan: What fit works on.
        env: The environment.
    """
    if options.minutes is not None:
        _check_minutes(options)
    if options.find_lr is not None:
        _check_find_lr(options, plan)
    name = "--find_lr" if options.minutes is None else "--minutes"
    if options.minutes is None and options.find_lr is None:
        return
    if plan.checkpoint is not None and not plan.resumes:
        raise UserError(
            f"{name} settles a run that begins with its own weights, and --ckpt_path "
            f"{plan.checkpoint} goes on with another one. Give one of them."
        )
    several = int(env.get("SLURM_NTASKS", "1")) > 1 or options.trainer.num_nodes > 1
    if several or "TORCHELASTIC_RUN_ID" in env:
        raise UserError(
            f"{name} is measured by the process that starts the others, and torchrun and SLURM "
            "start them all. Measure on one, then give what it wrote into its config.yaml."
        )


def _check_minutes(options: Any) -> None:
    minutes, trainer = options.minutes, options.trainer
    if not 0 < minutes < math.inf:
        raise UserError(f"--minutes is {minutes:g}; allowed is a number above 0.")
    if trainer.max_steps != -1 or trainer.max_time is not None:
        raise UserError(
            "--minutes settles the number of epochs, and --trainer.max_steps or "
            "--trainer.max_time ends the run otherwise. Give one of them."
        )
    given = [name for name in _TIMED if getattr(trainer, name) not in (None, 0, 0.0, 1.0)]
    given += ["check_val_every_n_epoch"] if trainer.check_val_every_n_epoch not in (None, 1) else []
    if given:
        raise UserError(
            f"--minutes times whole epochs with a validation after each, and --trainer.{given[0]} "
            "is set. Leave it out, or give --trainer.max_epochs instead of the minutes."
        )


def _check_find_lr(options: Any, plan: Plan) -> None:
    if options.find_lr == "stop" and plan.resumes:
        raise UserError(
            "--find_lr tries rates for a new run, and --ckpt_path goes on with one. Give one of "
            "them."
        )
    optimizer = options.model.optimizer
    if options.find_lr == "go_on" and not hasattr(optimizer, "class_path"):
        raise UserError(
            "--find_lr go_on sets model.optimizer.init_args.lr, and model.optimizer is "
            f"{optimizer}. Name it by class_path."
        )


def take_settled(options: Any, plan: Plan, env: Mapping[str, str]) -> None:
    """Put into the options what the run has settled already, instead of what it was asked for."""
    begun = plan.folder is not None and plan.folder.config.is_file()
    if plan.folder is not None and begun:  # also before its first checkpoint
        settled = read_config(plan.folder.newest_config)
        if is_open(options.model.net):
            _say(take_net(options, settled["model"]), begun)
    elif SETTLED in env and "LOCAL_RANK" in env:
        settled = json.loads(env[SETTLED])
    else:
        return
    if options.minutes is not None:
        epochs = options.trainer.max_epochs = settled["trainer"]["max_epochs"]
        options.minutes = None
        _say(f"--minutes: settled when the run began, {epochs} epoch(s)", begun)
    if options.find_lr is not None:
        rate = options.model.optimizer.init_args.lr = _rate_of(settled)
        options.find_lr = None
        _say(
            f"--find_lr: the run has begun, and goes on at the rate of its config, {rate:g}", begun
        )


def _say(line: str, begun: bool) -> None:
    if begun and "LOCAL_RANK" not in os.environ:
        print(line)


def _rate_of(config: Mapping[str, Any]) -> float:
    optimizer = config["model"]["optimizer"]
    found = optimizer.get("init_args") if isinstance(optimizer, Mapping) else None
    if not found or "lr" not in found:
        raise UserError(
            "--find_lr go_on: the run has begun with a rate that its config.yaml does not name. "
            "Leave --find_lr out."
        )
    return float(found["lr"])


def settle_workers(trainer: Any, model: Classifier, data: DataModule) -> str | None:
    """Settle what `data.num_workers: auto` means here; return a line on it."""
    if data.num_workers != "auto" or trainer.fast_dev_run:
        return None
    if not data.works_for_batches:
        data.settled_workers = 0
        return "data.num_workers: 0, since nothing is decoded or augmented"
    cores = own_cores(trainer.num_devices)
    pace = pace_of(trainer, model, data)
    workers = data.settled_workers = pace.workers(cores)
    making, who = (pace.worker, "one worker") if workers else (pace.data, "this process")
    return (
        f"data.num_workers: {workers}, since {data.batch_size} pictures take {who} "
        f"{1000 * making:.1f} ms to make and {1000 * pace.step:.1f} ms to learn from "
        f"({cores} core(s) for each process)"
    )


def pace_of(trainer: Any, model: Classifier, data: DataModule, seconds: float = 0.0) -> Pace:
    """Return how long a batch and a step take here, the step timed for so many seconds or more."""
    cores = own_cores(trainer.num_devices)
    return measure(
        model.net,
        model.loss,
        trial.batches(data, few(cores)),
        trainer.strategy.root_device,
        trainer.precision,
        trial.batches(data) if cores > 1 else None,
        model.build_optimizer,
        seconds,
    )


def settle_rate(trainer: Any, model: Classifier, data: DataModule, folder: RunFolder) -> float:
    """Run the range test on a copy of the network, and leave its curve in the run folder.

    Returns:
        The rate that it proposes.

    Raises:
        RunFailureError: if no rate made the loss fall.
    """
    print("learning rate range test, on a copy of the network ...", flush=True)
    test = range_test(
        model.net,
        model.loss,
        model.build_optimizer,
        trial.batches(data, few(own_cores(trainer.num_devices))),
        trainer.strategy.root_device,
        trainer.precision,
    )
    folder.path.mkdir(parents=True, exist_ok=True)
    curve, picture = folder.path / "find_lr.csv", folder.path / "find_lr.svg"
    write_text(curve, as_csv(test))
    write_text(picture, as_svg(test))
    print(f"{curve}\n{picture}")
    if test.proposed is None:
        raise RunFailureError(
            f"no learning rate of {LOWEST:g} to {HIGHEST:g} made the loss fall; {picture} shows "
            "it. Look at the data and the network."
        )
    print(f"proposed: --model.optimizer.init_args.lr {test.proposed:.2g}", flush=True)
    return float(f"{test.proposed:.2g}")


def take_rate(rate: float, model: Classifier, config: dict[str, Any]) -> None:
    """Train at this rate, and say so in the config."""
    optimizer = config["model"]["optimizer"]
    optimizer["init_args"] = {**(optimizer.get("init_args") or {}), "lr": rate}
    model.take_rate(rate)


def settle_epochs(
    trainer: Any,
    model: Classifier,
    data: DataModule,
    config: dict[str, Any],
    minutes: float,
    began: float,
    report: bool,
) -> str:
    """Let the run have as many epochs as fit into the minutes; return a line on it.

    Args:
        trainer: Its number of epochs is set.
        model: It is timed on copies.
        data: A batch of each kind is made.
        config: As it will be stored; its number of epochs is set.
        minutes: Above 0, from the start of the process to the end of the run.
        began: When the process started, by `time.monotonic`.
        report: Whether a report is written at the end.

    Raises:
        UserError: if a callback changes what a step takes.
    """
    for callback in trainer.callbacks:
        if getattr(callback, "changes_steps", False):
            raise UserError(
                f"--minutes times steps before the training, and {type(callback).__name__} makes "
                "others of them. Give --trainer.max_epochs instead."
            )
    budget = _measure(trainer, model, data, _LOOK * 60 * minutes, report)
    left = 60 * minutes - (time.monotonic() - began)
    epochs, seconds = budget.epochs(left), budget.of_epoch
    trainer.fit_loop.max_epochs = config["trainer"]["max_epochs"] = epochs
    line = (
        f"--minutes {minutes:g}: {epochs} epoch(s) of about {seconds:.1f} s, "
        f"{left:.0f} s are left for them"
    )
    return line + (" (one epoch takes longer than that)" if seconds > left else "")


def _measure(
    trainer: Any, model: Classifier, data: DataModule, seconds: float, report: bool
) -> Budget:
    devices = trainer.num_devices
    pace = pace_of(trainer, model, data, seconds)
    workers = trial.workers_of_training(data, devices)
    beside = trainer.strategy.root_device.type == "cpu"
    validation = seconds_to_validate(
        model.net, trial.blocks(data), trainer.strategy.root_device, trainer.precision
    )
    share = devices if beside else 1  # the processes compute on the same cores
    of_all = share * validation * math.ceil(trial.blocks_of_validation(data) / devices)
    return Budget(
        share * pace.seconds(workers, own_cores(devices)),
        trial.steps_of_epoch(data, devices),
        of_all,
        seconds_after(of_all, report),
    )


def hand_over(config: Mapping[str, Any]) -> None:
    """Tell the processes that the Trainer starts what was settled."""
    trainer, optimizer = config["trainer"], config["model"]["optimizer"]
    arguments = optimizer.get("init_args") or {} if isinstance(optimizer, dict) else {}
    os.environ[SETTLED] = json.dumps(
        {
            "trainer": {"max_epochs": trainer["max_epochs"]},
            "model": {"optimizer": {"init_args": {"lr": arguments.get("lr")}}},
        }
    )
