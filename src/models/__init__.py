"""The networks that a recipe names by class path; each takes plain uint8 pictures."""

from src.models.best_offline import BestOffline
from src.models.efficientnet_lite import EfficientNetLite0
from src.models.pretrained import PretrainedNet
from src.models.seed_cnn import SeedCNN
from src.models.small_resnet import SmallResNet

__all__ = ["BestOffline", "EfficientNetLite0", "PretrainedNet", "SeedCNN", "SmallResNet"]
