"""The LightningCLI subclass: parse, settle folder and classes, build the parts, run the command."""

import gc
import os
import shutil
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import seed_everything
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, instantiate_class

from src import fitting, going_on, hardware, settling
from src.best_net import settle_net
from src.classifier import Classifier
from src.config_check import check_classes, check_extras, read_config
from src.data.datamodule import DataModule
from src.data.find import data_root, find_classes
from src.errors import RunFailureError, UserError, typed
from src.explained import explain
from src.failures import place, raised_in, users_mistake
from src.loop import StepSeed, loop_callbacks, scoring_callbacks
from src.loop.checkpoint_io import AtomicCheckpointIO
from src.loop.loggers import place_loggers
from src.loop.progress import shows_bar
from src.memory import keep_freed_memory
from src.options import FitOptions, RunOptions, TestOptions
from src.quiet import quiet_libraries
from src.run import RunFolder
from src.run_rules import (
    COMMANDS,
    RUN_DIR,
    Plan,
    check_samples,
    check_trainer,
    option_values,
    own_data,
    plan_command,
    settle_length,
    with_stored_config,
    with_values,
    without_option,
)
from src.scoring import Scoring
from src.trust import root_for_lightning

_NOT_STORED = (
    *("config", "run_dir", "ckpt_path", "init_from", "init_optimizer"),
    *("trust_code", "allow_drift", "find_lr", "minutes"),
)


def run(args: list[str], began: float) -> None:
    """Run one command.

    Args:
        args: The words after `python -m src.train`.
        began: When the process was started, by `time.monotonic`.
    """
    quiet_libraries()
    from_shell = args == sys.argv[1:]
    if from_shell:  # each full collection would look at all objects of the libraries
        gc.freeze()
    with tempfile.TemporaryDirectory() as scratch:
        words = with_stored_config(with_values(args), Path(scratch))
        WaggleCLI(words, from_shell=from_shell, began=began)


class WaggleCLI(LightningCLI):
    """Builds a run from the command line and carries it out.

    Args:
        args: The words of the command line, after those of the run folder.
        from_shell: Whether this process was started with that command line.
        began: When it was, by `time.monotonic`.
    """

    def __init__(self, args: list[str], from_shell: bool, began: float) -> None:
        self.args, self.from_shell, self.began = args, from_shell, began
        super().__init__(
            Classifier,
            DataModule,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={
                "prog": "python -m src.train",
                "description": "Train, score and use an image classifier.",
                "allow_abbrev": False,
                "exit_on_error": False,
            },
            trainer_defaults={
                "logger": {"class_path": "src.loop.wandb_logger.WandbLogger"},
                "use_distributed_sampler": False,
                "enable_model_summary": False,
            },
            auto_configure_optimizers=False,
            args=args,
        )

    # The parser

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands, with the arguments of the Trainer's methods that are not options."""
        loaders = {"model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule"}
        ours = {"ckpt_path", "weights_only", "verbose", "return_predictions"}
        return dict.fromkeys(COMMANDS, loaders | ours)

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed."""
        parser.add_argument(
            "--seed_everything",
            type=int,
            default=self.seed_everything_default,
            help="Seed of the run: weights, order, augmentation, dropout; 0 or more.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the run folder, and the links."""
        parser.add_class_arguments(RunOptions, None)
        parser.link_arguments(
            "data.classes", "model.num_classes", compute_fn=lambda names: len(names or ())
        )
        parser.link_arguments("seed_everything", "data.seed")

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Add what one command alone takes."""
        super().setup_parser(*args, **kwargs)
        self._parser("fit").add_class_arguments(FitOptions, None)
        self._parser("test").add_class_arguments(TestOptions, None)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Look through the config files, then parse."""
        for name in option_values(args, "--config", "-c"):
            check_classes(read_config(Path(name)), name)
        try:
            self.config = parser.parse_args(args)
        except Exception as error:
            raise UserError(explain(str(error), self._option_names(args))) from error

    def _option_names(self, args: list[str]) -> list[str]:
        command = next((word for word in args if word in COMMANDS), "fit")
        chosen: ArgumentParser = self._parser(command)
        return list(chosen.get_defaults(skip_validation=True).keys(branches=True))

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would let the checkpoint override the command line here."""

    def _set_seed(self) -> None:
        seed = self.options.seed_everything
        if not 0 <= seed < 2**32:
            raise UserError(f"--seed_everything is {seed}; allowed is 0 to {2**32 - 1}.")
        seed_everything(seed, workers=True, verbose=False)

    @property
    def options(self) -> Any:
        """The parsed options of this command."""
        return self.config[self.config.subcommand]

    # Before anything is built

    def before_instantiate_classes(self) -> None:
        """Settle what the parts are built from, so that mistakes are found before the first one."""
        options, command = self.options, self.config.subcommand
        hardware.check(options.trainer)
        check_trainer(options.trainer, self.from_shell)
        settle_length(options.trainer)
        check_extras(options.trainer.logger)
        self.plan: Plan = plan_command(command, options)
        if command == "fit":
            settling.check(options, self.plan, os.environ)
            settling.take_settled(options, self.plan, os.environ)
            settle_net(options)
        self.samples = (
            None if command == "fit" else own_data(command, self.plan, options, self.args)
        )
        self.listing: Any = None
        if not options.data.classes:
            source = options.data.source
            made = instantiate_class((), source.as_dict()) if source else None
            found, self.listing = find_classes(data_root(options.data.root, made))
            options.data.classes = list(found)
        options.model.num_classes = len(options.data.classes)
        self.stored_config = self._config_to_store()
        if self.samples is not None:
            assert self.plan.folder is not None
            check_samples(self.plan.folder)
        if command != "fit":
            self.trainer_defaults["callbacks"] = scoring_callbacks()
            if not shows_bar(options.progress):
                options.trainer.enable_progress_bar = False
        if command == "fit":
            self.wandb_id = fitting.wandb_id(self.plan)
            place_loggers(options.trainer.logger, self.plan.folder, self.wandb_id)
            self.trainer_defaults["callbacks"] = loop_callbacks(
                options, self.plan.folder, self.plan.resumes, self.wandb_id
            )

    def _config_to_store(self) -> dict[str, Any]:
        text = self.parser.dump(self.config, skip_unset=False, skip_link_targets=True)
        stored: dict[str, Any] = yaml.safe_load(text)[self.config.subcommand]
        return {key: value for key, value in stored.items() if key not in _NOT_STORED}

    def instantiate_classes(self) -> None:
        """Build model, data and Trainer.

        Raises:
            UserError: for a value that one of the classes refuses.
        """
        try:
            super().instantiate_classes()
        except (UserError, RunFailureError, OSError, MemoryError):
            raise
        except Exception as error:  # whatever a class raises for its arguments
            if ours := users_mistake(error):
                raise ours from None
            raise UserError(
                f"a value in the config is refused: {error} ({place(error)})"
            ) from error

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Build the Trainer with our checkpoint files, and the run folder as its root."""
        given = self._get(self.config_init, "trainer")["plugins"] or []
        plugins = [*(given if isinstance(given, list) else [given]), AtomicCheckpointIO()]
        if self.plan.folder is not None:
            kwargs["default_root_dir"] = root_for_lightning(self.plan.folder.path)
        else:  # not the current folder: what lies there is nobody's choice for this run
            scratch = kwargs["default_root_dir"] = tempfile.mkdtemp()
            weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        trainer: Any = super().instantiate_trainer(plugins=plugins, **kwargs)
        # Before all others, so that theirs are the random numbers of the step too.
        trainer.callbacks.sort(key=lambda callback: not isinstance(callback, StepSeed))
        return trainer

    # The commands

    def fit(self, **parts: Any) -> None:
        """Train: a new run, or on with the one that lies in the folder."""
        options, plan = self.options, self.plan
        trainer: Any = self.trainer
        classes = list(options.data.classes)
        trainer.callbacks += fitting.starting_weights(plan, options, self.model, classes)
        if plan.folder is not None:
            plan.folder.require_writable("give another folder: --run_dir DIR")
        fitting.check_apart(plan.folder, self.datamodule.location)
        self.datamodule.listing, self.listing = self.listing, None
        self.model.take_preprocessing(self.datamodule.preprocessing)
        self.datamodule.prepare("fit")
        keep_freed_memory()  # not before: what decoding threads free would stay theirs
        if trainer.is_global_zero or self.datamodule.on_leak == "error":  # which ends all
            fitting.look_for_copies(self.datamodule)
        fitting.weigh_classes(self.model, self.datamodule)
        fitting.try_step(self.model, self.datamodule)
        print(fitting.describe_data(self.datamodule), flush=True)
        print(fitting.describe_net(self.model), flush=True)
        if slow := hardware.slow_precision(trainer.precision, trainer.strategy.root_device):
            print(f"WARNING: {slow}", file=sys.stderr)
        try:
            if not self._settle():
                return
            fingerprint = self.datamodule.index("fit").fingerprint()
            drift = going_on.settle_drift(
                trainer, self.stored_config, fingerprint, plan.checkpoint, options.allow_drift
            )
            if plan.folder is not None:
                self._begin(plan.folder, drift)
            self.trainer.fit(**parts, ckpt_path=plan.checkpoint, weights_only=True)
        except BaseException as error:
            began = plan.resumes or self.trainer.global_step > 0
            if plan.folder is not None and not began and self.trainer.is_global_zero:
                plan.folder.discard()  # nothing was learned: leave no half-made run behind
            if isinstance(error, ValueError) and not began and raised_in(error, "lightning"):
                raise UserError(f"the Trainer refuses: {error}") from error
            raise
        finally:
            os.environ.pop(RUN_DIR, None)
            os.environ.pop(settling.SETTLED, None)
        if plan.folder is None:
            print("fast_dev_run: every part ran once, nothing was kept")
        elif self.trainer.is_global_zero:
            fitting.finish_run(plan.folder, self.trainer, self.model, options.seed_everything)
            fitting.write_report(plan.folder, options.report, options.trust_code)
            if "test" in self.datamodule.index("fit").counts():
                print(f"score it: python -m src.train test --run_dir {typed(plan.folder.path)}")
            print(plan.folder.path)

    def _settle(self) -> bool:
        """Measure what the run settles before its first step; return whether there will be one."""
        options, parts = self.options, (self.trainer, self.model, self.datamodule)
        if workers := settling.settle_workers(*parts):
            print(workers, flush=True)
        if self.plan.folder is None:
            return True
        if options.find_lr is not None:
            rate = settling.settle_rate(*parts, self.plan.folder)
            if options.find_lr == "stop":
                return False
            settling.take_rate(rate, self.model, self.stored_config)
        if options.minutes is not None:
            reports = fitting.wants_report(options.report)
            config, minutes = self.stored_config, options.minutes
            print(settling.settle_epochs(*parts, config, minutes, self.began, reports), flush=True)
        settling.hand_over(self.stored_config)
        return True

    def _begin(self, folder: RunFolder, drift: list[str]) -> None:
        os.environ[RUN_DIR] = str(folder.path.absolute())
        options = self.options
        if not self.trainer.is_global_zero:
            return
        if self.plan.resumes:
            going_on.go_on(self.plan, self.stored_config, drift)
        else:
            record = {
                "wandb_id": self.wandb_id,
                "seed": options.seed_everything,
                "command": ["python", "-m", "src.train", *without_option(self.args, "--run_dir")],
                "init_from": options.init_from,
                **going_on.facts(self.trainer),
                "threads": torch.get_num_threads(),
                **({"drift": [drift]} if drift else {}),
            }
            fitting.begin_run(self.plan, self.datamodule, self.stored_config, record)
        for logger in self.trainer.loggers:
            logger.log_hyperparams(self.stored_config)

    def validate(self, **parts: Any) -> None:
        """Score the validation pictures; writes validate.json and validate.csv."""
        self._scoring().score("validate", {**parts, "verbose": False})

    def test(self, **parts: Any) -> None:
        """Score the test pictures; writes test.json and test.csv."""
        self.model.flips = self.options.flips
        suffix = "_flips" if self.model.flips else ""
        self._scoring().score("test", {**parts, "verbose": False}, suffix)

    def predict(self, **parts: Any) -> None:
        """Predict every picture; replaces predictions.csv.

        Raises:
            UserError: at the end, if files could not be decoded and data.on_bad_image is `error`.
        """
        self._scoring().predict({**parts, "return_predictions": False})

    def _scoring(self) -> Scoring:
        self.datamodule.samples = self.samples
        return Scoring(self.trainer, self.model, self.datamodule, self.plan)
