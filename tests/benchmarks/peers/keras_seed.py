"""The seed's program, as its blog post has it: Keras with TensorFlow.

Run by path in an environment of its own; it imports nothing of Waggle's. TensorFlow takes as many
threads as it likes, and everything that the post leaves to Keras is left to Keras here.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import keras
import numpy
import PIL
import scipy
import tensorflow
from keras import layers

if not hasattr(tensorflow.keras.preprocessing.image, "ImageDataGenerator"):
    raise SystemExit("this Keras has no ImageDataGenerator any more")
ImageDataGenerator = tensorflow.keras.preprocessing.image.ImageDataGenerator

AUGMENT = {
    "rotation_range": 50,
    "width_shift_range": 0.1,
    "height_shift_range": 0.1,
    "zoom_range": 0.1,
    "horizontal_flip": True,
    "fill_mode": "nearest",
}


def main() -> None:
    """Train plainly, then with augmentation, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10, help="of each half")
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    start = time.perf_counter()
    net, test = make_net(), pictures(options.root / "test")
    halves = []
    for augment in ({}, AUGMENT):
        train = pictures(options.root / "train", **augment)
        done = net.fit(train, epochs=options.epochs, validation_data=test, verbose=2)
        halves.append(done.history)
    record(options.out, halves, time.perf_counter() - start)


def make_net() -> Any:
    """Return the seed's network, compiled."""
    net = keras.Sequential()
    net.add(layers.Conv2D(32, (3, 3), activation="relu", input_shape=(150, 150, 3)))
    net.add(layers.MaxPooling2D((2, 2)))
    net.add(layers.Flatten())
    net.add(layers.Dense(64, activation="relu"))
    net.add(layers.Dense(1, activation="sigmoid"))
    optimizer = keras.optimizers.SGD(learning_rate=0.002, momentum=0.8)
    net.compile(loss="binary_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    return net


def pictures(folder: Path, **augment: Any) -> Any:
    """Return the batches of a folder."""
    made = ImageDataGenerator(rescale=1.0 / 255, **augment)
    return made.flow_from_directory(
        str(folder), target_size=(150, 150), batch_size=20, shuffle=True, class_mode="binary"
    )


def record(path: Path, halves: list[dict[str, list[float]]], seconds: float) -> None:
    """Write the accuracy of every epoch, the time without imports, and the versions."""
    modules = {"tensorflow": tensorflow, "keras": keras, "numpy": numpy, "scipy": scipy}
    content = {
        "accuracy": [float(value) for half in halves for value in half["accuracy"]],
        "val_accuracy": [float(value) for half in halves for value in half["val_accuracy"]],
        "inner_seconds": seconds,
        "versions": {
            "python": platform.python_version(),
            **{name: module.__version__ for name, module in modules.items()},
            "pillow": PIL.__version__,
        },
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
