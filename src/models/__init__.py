"""The networks that a recipe names by class path; each takes plain uint8 pictures."""

from src.models.seed_cnn import SeedCNN
from src.models.small_resnet import SmallResNet

__all__ = ["SeedCNN", "SmallResNet"]
