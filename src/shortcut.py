"""Does a network answer for the right reason? Its score when parts of each picture are taken away.

B pictures, H, W pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from src.forward import Alter, evaluate, evenly, take
from src.intervals import wilson_interval
from src.judged import Judged

MOST = 200  # pictures that are looked at; more narrow the intervals a little and cost the more
_CENTRE = 0.5**0.5  # share of the sides: the centre is half of the area
_BLUR = 0.03  # standard deviation of the blur, as a share of the side


@dataclass(frozen=True)
class Look:
    """The accuracy on altered pictures.

    Attributes:
        name: What was done.
        meaning: What a high or a low score says.
        n: Number of pictures.
        accuracy: Share of them named rightly, 0 to 1.
        interval: Its 95 % interval (Wilson).
    """

    name: str
    meaning: str
    n: int
    accuracy: float
    interval: tuple[float, float]


def only_centre(pixels: Tensor) -> Tensor:
    """Replace all but the middle half of the area by each picture's mean colour."""
    return torch.where(_middle(pixels), pixels, _mean(pixels))


def only_border(pixels: Tensor) -> Tensor:
    """Replace the middle half of the area by each picture's mean colour."""
    return torch.where(_middle(pixels), _mean(pixels), pixels)


def grey(pixels: Tensor) -> Tensor:
    """Take the colour away; the weights are those of ITU-R BT.601."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    value = (pixels.float() * weights).sum(3, keepdim=True).round()
    return value.clamp(0, 255).to(torch.uint8).expand_as(pixels).contiguous()


def blurred(pixels: Tensor) -> Tensor:
    """Take the detail away, by a Gaussian of 3 % of the side."""
    sigma = max(0.5, _BLUR * min(pixels.shape[1:3]))
    reach = min(int(3 * sigma + 0.5), min(pixels.shape[1:3]) - 1)
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    bell = torch.exp(-(steps**2) / (2 * sigma**2))
    bell = (bell / bell.sum()).reshape(1, 1, 1, -1)
    planes = pixels.permute(0, 3, 1, 2).float().flatten(0, 1)[:, None]  # [B * 3, 1, H, W]
    for kernel, pad in ((bell, (reach, reach, 0, 0)), (bell.mT, (0, 0, reach, reach))):
        planes = F.conv2d(F.pad(planes, pad, "reflect"), kernel)
    whole = planes.reshape(len(pixels), 3, *pixels.shape[1:3]).permute(0, 2, 3, 1)
    return whole.round().clamp(0, 255).to(torch.uint8).contiguous()


LOOKS: tuple[tuple[str, str, Alter | None], ...] = (
    ("as they are", "the yardstick", None),
    ("centre alone", "high: what is in the middle is enough", only_centre),
    ("border alone", "high: the background gives the class away", only_border),
    ("grey", "low: the network goes by colour", grey),
    ("blurred", "low: it goes by fine detail; high: by colour or shape", blurred),
)


def look(judged: Judged, block_size: int) -> list[Look]:
    """Return the accuracy on up to MOST evenly spread labelled pictures, whole and altered.

    Args:
        judged: What the network says of the whole pictures.
        block_size: Of a block.
    """
    rows = evenly(len(judged.right), MOST)
    some = take(judged.pictures, judged.table.index[rows])
    found = []
    for name, meaning, alter in LOOKS:
        right = judged.right[rows]
        if alter is not None:
            table = evaluate(judged.model.net, some, block_size, alter)
            right = judged.decision.predicted(table.logits) == table.target
        hits, n = int(right.sum()), len(right)
        found.append(Look(name, meaning, n, hits / n, wilson_interval(hits, n)))
    return found


def _middle(pixels: Tensor) -> Tensor:
    """Return which pixels lie in the middle half of the area, bool [1, H, W, 1]."""
    inside = []
    for side in pixels.shape[1:3]:
        place = (torch.arange(side) + 0.5) / side
        inside.append((place - 0.5).abs() <= _CENTRE / 2)
    return (inside[0][:, None] & inside[1][None, :])[None, :, :, None]


def _mean(pixels: Tensor) -> Tensor:
    """Return the mean colour of each picture, uint8 [B, 1, 1, 3]."""
    return pixels.float().mean((1, 2), keepdim=True).round().to(torch.uint8)
