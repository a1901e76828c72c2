"""The LightningModule: network, loss, metrics and optimizer, with one shared step.

B: batch, H, W: pixels, C: classes.

It never imports the data: the two meet in the batch (see `src.data.dataset`) and in the
preprocessing record.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from src.calibration import Decision, fit_decision, read_decision
from src.checkpoint import read_checkpoint
from src.class_weights import ClassWeights, balanced_weights, check_class_weights
from src.errors import UserError
from src.evaluation import Batch, ScoredModule
from src.metrics import quick_scores
from src.models import SeedCNN
from src.optimizing import named_refusals, with_schedule
from src.param_groups import build_optimizer, layers_of
from src.preprocess import Preprocessing
from src.train_metrics import TrainMetrics
from src.trust import check_hyper_parameters

NetCallable = Callable[[int], nn.Module]


class Classifier(ScoredModule):
    """Trains a network to tell classes apart, and scores it from one table of logits.

    Args:
        num_classes: Number of classes, from 2. Linked to the classes of the data.
        net: The network, by class_path: called with num_classes, it takes uint8 pixels
            [B, H, W, 3] and returns logits [B, num_classes].
        optimizer: By class_path; called with the parameters, of which norms and biases have a
            weight decay of 0.
        scheduler: By class_path; called with the optimizer, and with the number of optimizer steps
            of the run where it takes `total_steps`. Such a schedule moves every step, others every
            epoch. None keeps the rate constant.
        loss: Module of (logits [B, C], targets [B]), by class_path. None means cross entropy.
        label_smoothing: Share of the target spread over all classes, 0 to 1; for the cross entropy
            while training. Scores never use it.
        class_weights: How much each class counts in the cross entropy while training: a number
            above 0 for each, or `balanced` for N / (C * n) of N training pictures, n of them in
            that one of C classes. None counts every picture alike. Scores never use it.
        layer_decay: Rate of a layer as a share of the one above it, above 0, at most 1; the head
            has the optimizer's own. Below 1 the network must have a method `layers`.
        calibrate: Fit a temperature and, with two classes, a decision threshold to the validation
            table at the end of each validation. They go into the checkpoints, and whatever predicts
            from one heeds them. false takes the class of the highest logit.
        compile: Compile the network (torch.compile), in every command; needs a C++ compiler on a
            CPU. The first step then takes long, and last bits may differ.

    Raises:
        UserError: for fewer than 2 classes, for smoothing, weights or a layer decay out of range,
            or for the first two beside a loss of one's own.
    """

    def __init__(
        self,
        num_classes: int,
        net: NetCallable = SeedCNN,
        optimizer: OptimizerCallable = torch.optim.SGD,
        scheduler: LRSchedulerCallable | None = None,
        loss: nn.Module | None = None,
        label_smoothing: float = 0.0,
        class_weights: ClassWeights = None,
        layer_decay: float = 1.0,
        calibrate: bool = True,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise UserError(f"model.num_classes is {num_classes}; a classifier needs at least 2.")
        if not 0 <= label_smoothing <= 1 or (loss is not None and label_smoothing):
            raise UserError(
                f"model.label_smoothing is {label_smoothing}; allowed is 0 to 1, and 0 beside a "
                "model.loss of your own (give it to that loss instead)."
            )
        if not 0 < layer_decay <= 1:
            raise UserError(
                f"model.layer_decay is {layer_decay}; allowed is above 0 and at most 1, which "
                "gives all layers the same rate."
            )
        check_class_weights(class_weights, num_classes, loss is not None)
        self.save_hyperparameters(ignore="loss", logger=False)
        for name in ("net", "optimizer", "scheduler"):
            if callable(self.hparams.get(name)):  # from Python; the CLI hands in plain data
                del self.hparams[name]
        self.num_classes = num_classes
        self.net = net(num_classes)
        self.loss = loss or nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.class_weights = class_weights
        if class_weights is not None and not isinstance(class_weights, str):
            self._weigh(class_weights)
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.layer_decay = layer_decay
        if layer_decay != 1:
            layers_of(self.net, f"model.layer_decay {layer_decay}")
        self.compile_net, self.calibrate = compile, calibrate
        self.train_metrics = TrainMetrics(num_classes)
        self._saved_metrics: dict[str, Tensor] = {}  # of the epoch that a checkpoint lies in
        self.preprocessing: Preprocessing | None = None
        self.decision = Decision()  # fitted to the latest validation of a training
        self.scores: dict[str, float] = {}  # of the latest validation, float64

    def setup(self, stage: str) -> None:
        """Take the preprocessing record of the data and its class counts; compile the network."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.take_preprocessing(data.preprocessing)
        if stage == "fit" and self.class_weights == "balanced":
            self.take_counts(data.train_counts)
        if self.compile_net:
            # In place, so that the names in a checkpoint stay; each shape by itself, so that what
            # is compiled does not depend on the shapes before it.
            self.net.compile(dynamic=False)

    def take_preprocessing(self, record: Preprocessing) -> None:
        """Check the record of the data against the network, and complete it with its constants.

        Raises:
            UserError: if the network wants another picture size than the data have.
        """
        wanted = getattr(self.net, "image_size", None)
        if wanted and wanted != record.image_size:
            raise UserError(
                f"{type(self.net).__name__} takes pictures of {wanted} pixels and data.image_size "
                f"is {record.image_size}. Set it and model.net.init_args.image_size alike."
            )
        constants: dict[str, Any] = {
            k: tuple(getattr(self.net, k)) for k in ("mean", "std") if hasattr(self.net, k)
        }
        self.preprocessing = dataclasses.replace(record, **constants)

    def take_counts(self, counts: Mapping[str, int]) -> None:
        """Weigh the classes by their training pictures, {class: number}, if `balanced` asks for it.

        Raises:
            UserError: if a class has none.
        """
        if self.class_weights == "balanced":
            self._weigh(balanced_weights(counts))

    def _weigh(self, weights: list[float]) -> None:
        """Set the weights of the loss; they come from config and data, never from a checkpoint."""
        values = torch.tensor(weights, dtype=torch.float32)
        self.loss.register_buffer("weight", values, persistent=False)

    def take_rate(self, lr: float) -> None:
        """Train at this rate instead of the optimizer's own."""
        self.make_optimizer = partial(self.make_optimizer, lr=lr)  # type: ignore[call-arg]
        if isinstance(named := self.hparams.get("optimizer"), dict):  # what checkpoints say
            named["init_args"] = {**(named.get("init_args") or {}), "lr": lr}

    def expect_checkpoint(self) -> None:
        """Load no weights of elsewhere: a checkpoint will give all of them."""
        if getattr(self.net, "weights_due", False):
            self.net.weights_due = False  # type: ignore[assignment]  # see src.models.backbone

    def load_pretrained(self) -> bool:
        """Let a network that starts from weights of elsewhere load them; return whether it did.

        It does so once, and not where a checkpoint has given it its weights.

        Raises:
            UserError: if they can't be had.
        """
        if not getattr(self.net, "weights_due", False):
            return False
        self.net.load_pretrained()  # type: ignore[operator]  # see src.models.backbone
        return True

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits, float [B, C], of uint8 pixels [B, H, W, 3]."""
        return self.check_logits(self.net(image), image)

    def check_logits(self, logits: Tensor, image: Tensor) -> Tensor:
        """Return the logits, or raise UserError if they are not [B, C]."""
        if logits.shape != (len(image), self.num_classes):
            raise UserError(
                f"{type(self.net).__name__} gave logits of shape {list(logits.shape)}; expected is "
                f"[{len(image)}, {self.num_classes}], a column for each class."
            )
        return logits

    # Training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch; the metrics are counted as integers."""
        logits = self(batch["image"])
        loss: Tensor = self.loss(logits, batch.get("target_shares", batch["target"]))
        self.train_metrics.update(loss, logits, batch["target"])
        self.log("train/loss_step", loss)
        return loss

    def on_train_start(self) -> None:
        """Take the metrics of an epoch up where the checkpoint was written."""
        if self._saved_metrics:
            trainer = self.trainer
            self.train_metrics.restore(self._saved_metrics, trainer.global_rank, trainer.world_size)
            self._saved_metrics = {}

    def on_train_epoch_start(self) -> None:
        """Start counting anew."""
        self.train_metrics.reset()

    def train_scores(self) -> dict[str, float]:
        """Return train/loss and train/accuracy over the epoch so far, on all processes alike."""
        return self.train_metrics.compute()

    def configure_optimizers(self) -> Any:
        """Build the optimizer and the schedule that the config names.

        Raises:
            UserError: for a value that one of them refuses.
        """
        self.load_pretrained()  # by now a checkpoint has given its weights, if there is one
        with named_refusals():
            return with_schedule(self.build_optimizer(), self.make_scheduler, self)

    def build_optimizer(self, net: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return a new optimizer on the parameters, in groups: see `src.param_groups`.

        Args:
            net: Trained alone, a copy of the network; None means all that the module trains.

        Raises:
            UserError: for a value that it refuses.
        """
        with named_refusals():
            return build_optimizer(
                self.make_optimizer, net or self, net or self.net, self.layer_decay
            )

    # Evaluation: see src.evaluation

    def on_validation_epoch_end(self) -> None:
        """Score the table; beside it stand the training metrics of the epoch so far."""
        table = self.finish()
        if self.trainer.sanity_checking:
            self.table = None  # of a few pictures
            return
        fits = self.trainer.state.fn == "fit"
        if fits and self._calibrates:
            self.decision = fit_decision(table, not self._balanced)
        found = quick_scores(table, self.decision)
        self.scores = {f"val/{name}": value for name, value in found.items()}
        if fits:
            self.scores = self.train_scores() | self.scores
        self.log_dict(self.scores)

    @property
    def _calibrates(self) -> bool:
        """Whether a decision is fitted; never to test pictures."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        return self.calibrate and not getattr(data, "validate_on_test", False)

    @property
    def _balanced(self) -> bool:
        """Whether small classes count for more, which a threshold by their shares would undo."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        return self.class_weights is not None or getattr(data, "sampling", None) == "balanced"

    # Checkpoints: plain types alone

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add preprocessing record, decision and the epoch's training metrics of all processes."""
        checkpoint["decision"] = self.decision.to_dict()
        if self.preprocessing is not None:
            checkpoint["preprocessing"] = self.preprocessing.to_dict()
        checkpoint["train_metrics"] = self.train_metrics.state(self.all_gather)
        checkpoint["scores"] = self.scores

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | os.PathLike[str],
        *,
        map_location: Any = None,
        strict: bool | None = None,
        weights_only: bool = True,
        trust_code: Sequence[str] = (),
        **arguments: Any,
    ) -> "Classifier":
        """Build the module that a checkpoint describes; a stranger's can't run code.

        Args:
            checkpoint_path: A file on this machine.
            map_location: Where the tensors go; None means where they were.
            strict: Whether all tensors must fit; None means yes.
            weights_only: Plain data alone; there is no other way.
            trust_code: Prefixes of class paths that the checkpoint may name beside those of this
                project and of its libraries.
            arguments: Of the module, instead of the stored ones.

        Raises:
            UserError: for an address, a damaged file, or one that holds anything but plain data or
                names code that nobody vouched for.
        """
        if "://" in str(checkpoint_path) or not weights_only or "hparams_file" in arguments:
            raise UserError(
                f"load_from_checkpoint({str(checkpoint_path)!r}, weights_only={weights_only}): "
                "allowed are files on this machine, weights_only=True and no hparams_file."
            )
        path = Path(checkpoint_path)
        content = read_checkpoint(path, "checkpoint_path")
        check_hyper_parameters(content, path, tuple(arguments), trust_code)
        return super().load_from_checkpoint(
            path, map_location=map_location, strict=strict, weights_only=True, **arguments
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back.

        Raises:
            UserError: if the decision is damaged.
        """
        self.decision = Decision()
        if self.calibrate and "decision" in checkpoint:
            self.decision = read_decision(checkpoint["decision"])
        if "preprocessing" in checkpoint:
            self.preprocessing = Preprocessing.from_dict(checkpoint["preprocessing"])
        self.scores = checkpoint.get("scores", {})
        self._saved_metrics = checkpoint.get("train_metrics", {})
