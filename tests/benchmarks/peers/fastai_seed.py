"""The seed's experiment as one would write it with fastai.

Run by path in an environment of its own; it imports nothing of Waggle's. The same layers, batch,
rates and epochs as the seed. Resizing is fastai's, and so is the augmentation, which works on whole
batches: rotation, zoom and mirroring as in the seed, but it has no shift of its own.
"""

import argparse
import json
import platform
import sys
import time
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def import_torchvision() -> Any:
    """Import torchvision; its CUDA build next to a CPU torch needs two names declared first.

    Returns:
        What has to be kept as long as torchvision is used.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return None
    declared = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        declared.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torchvision  # noqa: F401

    return declared


_KEPT = import_torchvision()

from fastai.vision.all import (  # noqa: E402 - needs torchvision
    SGD,
    ImageDataLoaders,
    Learner,
    Resize,
    ResizeMethod,
    aug_transforms,
    set_seed,
)


def main() -> None:
    """Train plainly, then with augmentation, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10, help="of each half")
    options = parser.parse_args()
    set_seed(options.seed)
    start = time.perf_counter()
    learner, rows = None, []
    for batch_tfms in (None, augmentation()):
        dls = loaders(options.root, batch_tfms)
        learner = learner or make_learner(dls)
        learner.dls = dls
        with learner.no_bar():
            learner.fit(options.epochs, lr=0.002, wd=0)
        rows += learner.recorder.values
    record(options.out, [list(row) for row in rows], time.perf_counter() - start)


def augmentation() -> list[Any]:
    """Return the seed's augmentation, as near as fastai's own comes to it."""
    return aug_transforms(
        do_flip=True,
        max_rotate=50,
        min_zoom=0.9,
        max_zoom=1.1,
        max_lighting=0,
        max_warp=0,
        p_affine=1.0,
        pad_mode="border",
    )


def loaders(root: Path, batch_tfms: list[Any] | None) -> Any:
    """Return the batches of both folders."""
    return ImageDataLoaders.from_folder(
        root,
        train="train",
        valid="test",
        item_tfms=Resize(150, method=ResizeMethod.Squish),
        batch_tfms=batch_tfms,
        bs=20,
        device=torch.device("cpu"),
    )


def make_learner(dls: Any) -> Any:
    """Return the seed's network with its optimizer and loss."""
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 74 * 74, 64),
        nn.ReLU(),
        nn.Linear(64, 1),
    )
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)  # as Keras starts
            nn.init.zeros_(layer.bias)
    return Learner(
        dls, net, loss_func=loss, opt_func=partial(SGD, mom=0.8), metrics=[accuracy], train_bn=False
    )


def loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the binary cross entropy of logits [B, 1] and classes [B]."""
    return nn.functional.binary_cross_entropy_with_logits(logits.squeeze(1), target.float())


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the part that was recognised."""
    return ((logits.squeeze(1) > 0).long() == target).float().mean()


def record(path: Path, rows: list[list[float]], seconds: float) -> None:
    """Write the accuracy of every epoch, the time without imports, and the versions.

    Args:
        path: The file.
        rows: Train loss, validation loss and accuracy of every epoch.
        seconds: From after the imports to the end.
    """
    names = ("fastai", "torch", "torchvision", "numpy", "pillow")
    content = {
        "val_accuracy": [float(row[2]) for row in rows],
        "inner_seconds": seconds,
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in names},
        },
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
