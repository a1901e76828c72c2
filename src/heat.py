"""Where a network looks: heat maps by LayerCAM.

B pictures, H, W pixels, C classes; h, w cells of a layer's map.
"""

import copy
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Heat = npt.NDArray[np.float32]
LEAST_SIDE = 4  # cells of a map that can say where something is
EDGE = 0.25  # weight of the heat at the very edge


class Layer(NamedTuple):
    """A module whose output is a map, and how many pixels one of its cells stands for."""

    module: nn.Module
    cell: int


def explainable(net: nn.Module) -> nn.Module:
    """Return a copy of which every layer has gradients, in the mode of evaluation, on the CPU."""
    return copy.deepcopy(net).cpu().float().eval().requires_grad_(True)


def layer_to_show(net: nn.Module, pixels: Tensor) -> Layer | None:
    """Return the last module whose output is a map of LEAST_SIDE cells or more along each side.

    Later layers know more of the class, earlier ones more of the place.

    Args:
        net: Takes the pixels.
        pixels: uint8 [1, H, W, 3].

    Returns:
        None if no module gives a map: a network of dense layers alone.
    """
    found: list[Layer] = []
    height, width = pixels.shape[1:3]
    side = min(height, width)

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            rows, columns = output.shape[2:]
            cells = min(rows, columns)
            alike = rows * width == columns * height  # else channels stand last, as in Swin
            if alike and LEAST_SIDE <= cells < side:  # the input itself, normalised, is no map
                found.append(Layer(module, round(side / cells)))

    hooks = [module.register_forward_hook(note) for name, module in net.named_modules() if name]
    try:
        with torch.no_grad():
            net(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return found[-1] if found else None


def heat_maps(net: nn.Module, pixels: Tensor, targets: Tensor, layer: Layer) -> Heat:
    """Return what in each picture speaks for a class rather than for the others.

    LayerCAM (Jiang et al. 2021, IEEE Transactions on Image Processing 30:5875-5888): the channels
    of a layer, each cell weighted by the positive gradient of the class's log odds, summed.
    Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) has one weight for a whole channel, and says
    less of the place where a map has few cells. The mean with the mirrored picture's map is taken;
    the outermost cells, which mix with the padding, fade towards the edge.

    Args:
        net: From `explainable`.
        pixels: uint8 [B, H, W, 3].
        targets: int64 [B], the class that is asked for.
        layer: From `layer_to_show`.

    Returns:
        float32 [B, H, W], 0 to 1, the highest of each picture 1; all 0 where nothing speaks for it.
    """
    plain, mirrored = (
        _scaled(_layer_cam(net, view, targets, layer.module))
        for view in (pixels, pixels.flip(2).contiguous())
    )
    fade = torch.outer(*(_fade(side, layer.cell) for side in pixels.shape[1:3]))
    return np.asarray(_scaled((plain + mirrored.flip(2)) * fade).numpy(), np.float32)


def _fade(side: int, cell: int) -> Tensor:
    """Return EDGE at the ends, rising to 1 a cell inside, float [side]."""
    place = torch.arange(side) + 0.5
    inside = torch.minimum(place, side - place) / cell
    return (EDGE + (1 - EDGE) * inside).clamp_max(1.0)


def _layer_cam(net: nn.Module, pixels: Tensor, targets: Tensor, module: nn.Module) -> Tensor:
    """Return the maps [B, H, W] of a layer, 0 and above."""
    kept: list[Tensor] = []
    hook = module.register_forward_hook(lambda _m, _i, output: kept.append(output))
    try:
        logits: Tensor = net(pixels)  # [B, C]
    finally:
        hook.remove()
    own = logits.gather(1, targets[:, None])[:, 0]
    others = logits.scatter(1, targets[:, None], -torch.inf).logsumexp(1)
    (gradient,) = torch.autograd.grad((own - others).sum(), kept[-1])
    cells = (F.relu(gradient) * kept[-1]).sum(1, keepdim=True).detach()  # [B, 1, h, w]
    whole = F.interpolate(
        F.relu(cells), tuple(pixels.shape[1:3]), mode="bilinear", align_corners=False
    )
    return whole[:, 0]


def _scaled(maps: Tensor) -> Tensor:
    """Return [B, H, W] with the highest of each picture at 1."""
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)


def first_filters(net: nn.Module) -> npt.NDArray[np.uint8] | None:
    """Return the kernels of a first convolution on red, green and blue, uint8 [K, h, w, 3].

    Each is stretched to 0 to 255 around grey, so that a weight of zero is 128.

    Returns:
        None where the first convolution has other channels or kernels below 3 x 3.
    """
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.in_channels != 3 or first.groups != 1 or min(first.kernel_size) < 3:
        return None
    kernels = first.weight.detach().float().cpu().permute(0, 2, 3, 1)  # [K, h, w, 3]
    scale = kernels.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    return np.asarray((128 + 127 * kernels / scale).round().clamp(0, 255).to(torch.uint8).numpy())
