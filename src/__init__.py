"""Waggle: an exact, modular training framework for image classifiers.

This file runs before any other module of ours. It sets what must hold before a library is
imported, and imports nothing heavy.
"""

import os

from src.torchvision_care import take_care

__version__ = "0.1.0"

# A checkpoint from a stranger must not run code: torch then refuses pickled objects everywhere,
# also where a caller asks for them. Both variables set at once is an error in torch.
os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"

# No library phones home: albumentations asks the package index for its newest version at import,
# wandb reports its own errors to a third party even when offline.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# torchmetrics imports torchvision wherever it is installed, and one that does not fit the torch
# beside it would end every program of ours.
take_care()
