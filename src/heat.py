"""Where a network looks: heat maps by LayerCAM.

B pictures, H, W pixels, C classes; h, w cells of a layer's map.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Heat = npt.NDArray[np.float32]
LEAST_SIDE = 4  # cells of a map that can say where something is
FINE_SIDE = 7  # cells of a map that says it well
EDGE = 0.25  # weight of the heat at the very edge


Keep = Callable[[nn.Module, int, Any], None]  # module, number of the call from 0, output


class Layer(NamedTuple):
    """A module whose output is a map.

    Attributes:
        module: May be called several times, as a ReLU that layers share.
        cell: How many pixels one cell of the map stands for.
        call: The number of the call, from 0.
    """

    module: nn.Module
    cell: int
    call: int = 0


def explainable(net: nn.Module) -> nn.Module:
    """Return a copy of which every layer has gradients, in the mode of evaluation, on the CPU."""
    return copy.deepcopy(net).cpu().float().eval().requires_grad_(True)


def layers_to_show(net: nn.Module, pixels: Tensor) -> tuple[Layer, ...]:
    """Return the last module whose output is a map of LEAST_SIDE cells or more along each side.

    Later layers know more of the class, earlier ones more of the place. So where that map has fewer
    cells than FINE_SIDE, the last one that has as many follows.

    Args:
        net: Takes the pixels.
        pixels: uint8 [1, H, W, 3].

    Returns:
        Nothing if no module gives a map: a network of dense layers alone.
    """
    found: list[tuple[int, Layer]] = []
    height, width = pixels.shape[1:3]
    side = min(height, width)

    def note(module: nn.Module, call: int, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            rows, columns = output.shape[2:]
            cells = min(rows, columns)
            alike = rows * width == columns * height  # else channels stand last, as in Swin
            if alike and LEAST_SIDE <= cells < side:  # the input itself, normalised, is no map
                found.append((cells, Layer(module, round(side / cells), call)))

    with _seeing([module for name, module in net.named_modules() if name], note), torch.no_grad():
        net(pixels)
    fine = [layer for cells, layer in found if cells >= FINE_SIDE]
    return tuple(dict.fromkeys([*(layer for _, layer in found[-1:]), *fine[-1:]]))


@contextmanager
def _seeing(modules: Iterable[nn.Module], keep: Keep) -> Iterator[None]:
    """Hand over every output of the modules."""
    calls: Counter[nn.Module] = Counter()

    def hook(module: nn.Module, _: Any, output: Any) -> None:
        keep(module, calls[module], output)
        calls[module] += 1

    hooks = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


def heat_maps(net: nn.Module, pixels: Tensor, targets: Tensor, layers: Sequence[Layer]) -> Heat:
    """Return what in each picture speaks for a class rather than for the others.

    LayerCAM (Jiang et al. 2021, IEEE Transactions on Image Processing 30:5875-5888): the channels
    of a layer, each cell weighted by the positive gradient of the class's log odds, summed.
    Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) has one weight for a whole channel, and says
    less of the place where a map has few cells. The mean with the mirrored picture's map is taken;
    the outermost cells, which mix with the padding, fade towards the edge. The maps of several
    layers are multiplied: what both of them point at stays.

    Args:
        net: From `explainable`.
        pixels: uint8 [B, H, W, 3].
        targets: int64 [B], the class that is asked for.
        layers: From `layers_to_show`, one at least.

    Returns:
        float32 [B, H, W], 0 to 1, the highest of each picture 1; all 0 where nothing speaks for it.
    """
    plain = _layer_cams(net, pixels, targets, layers)
    mirrored = _layer_cams(net, pixels.flip(2).contiguous(), targets, layers)
    whole = torch.ones(())
    for layer, one, other in zip(layers, plain, mirrored, strict=True):
        fade = torch.outer(*(_fade(side, layer.cell) for side in pixels.shape[1:3]))
        whole = whole * _scaled((_scaled(one) + _scaled(other).flip(2)) * fade)
    return np.asarray(_scaled(whole).numpy(), np.float32)


def _fade(side: int, cell: int) -> Tensor:
    """Return EDGE at the ends, rising to 1 a cell inside, float [side]."""
    place = torch.arange(side) + 0.5
    inside = torch.minimum(place, side - place) / cell
    return (EDGE + (1 - EDGE) * inside).clamp_max(1.0)


def _layer_cams(
    net: nn.Module, pixels: Tensor, targets: Tensor, layers: Sequence[Layer]
) -> list[Tensor]:
    """Return the maps of the layers, each [B, H, W], 0 and above."""
    kept: dict[tuple[nn.Module, int], Tensor] = {}
    wanted = [(layer.module, layer.call) for layer in layers]

    def keep(module: nn.Module, call: int, output: Tensor) -> None:
        if (module, call) in wanted:
            kept[module, call] = output

    with _seeing({layer.module for layer in layers}, keep):
        logits: Tensor = net(pixels)  # [B, C]
    own = logits.gather(1, targets[:, None])[:, 0]
    others = logits.scatter(1, targets[:, None], -torch.inf).logsumexp(1)
    outputs = [kept[one] for one in wanted]
    gradients = torch.autograd.grad((own - others).sum(), outputs)
    return [_spread(F.relu(gradient) * output, pixels)
            for gradient, output in zip(gradients, outputs, strict=True)]  # fmt: skip


def _spread(cells: Tensor, pixels: Tensor) -> Tensor:
    """Return cells [B, K, h, w], summed over their channels, as large as the pictures."""
    summed = F.relu(cells.sum(1, keepdim=True)).detach()  # [B, 1, h, w]
    size = tuple(pixels.shape[1:3])
    return F.interpolate(summed, size, mode="bilinear", align_corners=False)[:, 0]


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
