"""The features of a frozen network, computed once, so that training its head takes moments."""

import time
from hashlib import blake2b
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from src.errors import UserError

_HEAD = ("dropout", "head")  # what comes behind the features


class KeptFeatures(Callback):
    """Gives a frozen network the features of its pictures, computed once and kept in the cache.

    Before the first step the network looks at every training and validation picture, in the blocks
    of a validation. From then on each batch holds the features instead, [B, F] for [B, H, W, 3], so
    only the head has work. The scores are those of a run without it, but for the last bits of the
    training; checkpoints hold the whole network. Other commands, and fast_dev_run, see pictures.

    Needs a network that has `features` and is `frozen`, and no `data.augment`.
    """

    changes_steps = True  # so --minutes can't time them beforehand

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}  # split -> features, float [N, F], on the device
        self._swapped: tuple[dict[str, Tensor], Tensor] | None = None  # a batch and its pictures

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that features stay what they are.

        Raises:
            UserError: if the network is not frozen, or pictures are augmented or changed.
        """
        if stage != "fit":
            return
        net: Any = pl_module.net
        if not getattr(net, "frozen", False):
            raise UserError(
                f"callbacks.KeptFeatures: {type(net).__name__} is not frozen, so its features "
                "change with every step. Set model.net.init_args.frozen: true, on a network that "
                "has it such as src.models.EfficientNetLite0, or leave the callback out."
            )
        if trainer.datamodule.augmentation is not None:  # type: ignore[attr-defined]
            raise UserError(
                "callbacks.KeptFeatures keeps the features of each picture once, and data.augment "
                "makes other pictures in every epoch. Leave one of the two out."
            )
        others: Any = trainer
        for other in others.callbacks:
            if getattr(other, "changes_pictures", False):
                raise UserError(
                    "callbacks.KeptFeatures keeps the features of each picture once, and "
                    f"callbacks.{type(other).__name__} changes the pictures. Leave one of the two "
                    "out."
                )

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the features ready before the first batch."""
        self._prepare(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the features ready where no sanity check was made."""
        self._prepare(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that nothing has begun to train the body.

        Raises:
            UserError: if something has.
        """
        net: Any = pl_module.net
        if self._kept and any(p.requires_grad for part in _body(net) for p in part.parameters()):
            raise UserError(
                "callbacks.KeptFeatures: another callback trains the body of the network by now, "
                "and its features would stay as they were. Leave one of the two out."
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put the features in the pictures' place."""
        self._swap(batch, "train")

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Put the pictures back, for whoever looks at the batch after the step."""
        self._swap_back()

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Put the features in the pictures' place."""
        self._swap(batch, _validated(trainer))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Put the pictures back."""
        self._swap_back()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the features go."""
        self._kept.clear()

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        about: Any = trainer
        if self._kept or about.fast_dev_run:
            return
        key = _fingerprint(trainer, pl_module)

        def compute(batch: dict[str, Tensor]) -> Any:
            return _features(trainer, pl_module, batch["image"])

        for split in ("train", _validated(trainer)):
            if not len(about.datamodule.pictures("fit", split)):
                continue  # data.val_fraction 0
            start = time.perf_counter()
            rows = about.datamodule.computed(split, key, compute)
            self._kept[split] = torch.tensor(rows).to(_weight(pl_module))
            if trainer.is_global_zero:
                seconds = time.perf_counter() - start
                print(f"features of {len(rows):,} {split} pictures: {seconds:.1f} s", flush=True)

    def _swap(self, batch: dict[str, Tensor], split: str) -> None:
        if split in self._kept:
            self._swapped = batch, batch["image"]
            # A masked row of a block has the index -1; what it gets is never looked at.
            batch["image"] = self._kept[split][batch["index"].clamp(min=0)]

    def _swap_back(self) -> None:
        if self._swapped is not None:
            batch, pictures = self._swapped
            batch["image"], self._swapped = pictures, None


def _validated(trainer: Trainer) -> str:
    """Return the split that is scored after every epoch."""
    return "test" if trainer.datamodule.validate_on_test else "val"  # type: ignore[attr-defined]


def _weight(module: LightningModule) -> Tensor:
    net: Any = module.net
    weight: Tensor = net.head.weight
    return weight


def _body(net: nn.Module) -> list[nn.Module]:
    return [part for name, part in net.named_children() if name not in _HEAD]


def _features(trainer: Trainer, module: LightningModule, pixels: Tensor) -> Any:
    """Return the features of uint8 [B, H, W, 3] as float32 [B, F] of numpy."""
    net: Any = module.net
    with torch.inference_mode(), trainer.precision_plugin.val_step_context():
        return net.features(pixels.to(module.device)).float().cpu().numpy()


def _constants(net: nn.Module) -> tuple[Any, Any]:
    return getattr(net, "mean", None), getattr(net, "std", None)


def _fingerprint(trainer: Trainer, module: LightningModule) -> str:
    """Return what features depend on besides the pictures: network, weights, arithmetic."""
    net: Any = module.net
    digest = blake2b(digest_size=16)
    for part in _body(net):
        digest.update(repr(part).encode())
        for tensor in part.state_dict().values():
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    device = module.device
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    arithmetic = (trainer.precision, chip, torch.__version__, torch.get_num_threads())
    return f"{digest.hexdigest()} {_constants(net)} {arithmetic}"
