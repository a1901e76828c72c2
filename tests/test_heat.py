"""Heat maps, on networks whose evidence lies at a known place."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.heat import Layer, explainable, first_filters, heat_maps, layers_to_show
from src.models import EfficientNetLite0, SeedCNN, SmallResNet

SIDE, CELL = 32, 4


class Spots(nn.Module):
    """Class 0 is how much red there is, class 1 how much blue, in cells of 4 x 4 pixels.

    Args:
        columns: Cells from the left that count.
    """

    def __init__(self, columns: int = SIDE // CELL) -> None:
        super().__init__()
        self.columns = columns
        self.cells = nn.Conv2d(3, 2, CELL, stride=CELL, bias=False)
        nn.init.zeros_(self.cells.weight)
        for c, colour in enumerate((0, 2)):
            nn.init.constant_(self.cells.weight[c, colour], 1 / CELL**2)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.cells(pixels.permute(0, 3, 1, 2).float() / 255)  # [B, 2, 8, 8]
        return maps[..., : self.columns].sum((2, 3))


def black(number: int = 1) -> Tensor:
    return torch.zeros(number, SIDE, SIDE, 3, dtype=torch.uint8)


def maps_of(net: nn.Module, pixels: Tensor, *targets: int) -> np.ndarray:
    net = explainable(net)
    return heat_maps(net, pixels, torch.tensor(targets), layers_to_show(net, pixels[:1]))


class TestHeatMaps:
    def test_the_hottest_point_lies_where_the_evidence_is(self) -> None:
        pixels = black(2)
        pixels[:, 8:12, 20:24, 0] = 255  # red, for class 0
        pixels[:, 20:24, 4:8, 2] = 255  # blue, for class 1
        for c, found in enumerate(maps_of(Spots(), pixels, 0, 1)):
            y, x = np.unravel_index(found.argmax(), found.shape)
            (top, left) = ((8, 20), (20, 4))[c]
            assert top <= y < top + CELL
            assert left <= x < left + CELL
            assert found.max() == 1
            assert found[24:, 24:].max() == 0

    def test_edges_fade(self) -> None:
        pixels = black()
        pixels[..., 0] = 255
        found = maps_of(Spots(), pixels, 0)[0]
        # 0.25 + 0.75 * 0.5 / 4 = 0.34375 in the outermost pixel; a cell inside nothing fades.
        assert found[16, 16] == 1
        assert found[16, 0] == pytest.approx(0.34375)
        assert found[0, 0] == pytest.approx(0.34375**2)
        assert found[16, 4] == 1

    def test_the_mirrored_picture_has_its_say(self) -> None:
        """A network that looks at the left half alone: both halves get the same."""
        pixels = black()
        pixels[..., 0] = 255
        found = maps_of(Spots(columns=4), pixels, 0)[0]
        assert found[16, 8] > 0.9
        assert np.allclose(found, found[:, ::-1], atol=1e-6)

    def test_no_evidence_is_no_heat(self) -> None:
        pixels = black()
        pixels[..., 2] = 255
        assert maps_of(Spots(), pixels, 0).max() == 0

    def test_a_frozen_network(self) -> None:
        net = Spots().requires_grad_(False)
        pixels = black()
        pixels[:, 8:12, 8:12, 0] = 255
        assert maps_of(net, pixels, 0).max() == 1
        assert not any(p.requires_grad for p in net.parameters())  # a copy was looked at


class TwoScales(nn.Module):
    """Red in cells of 4 x 4 pixels, and on top of them in cells of 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = Spots().cells
        self.coarse = nn.AvgPool2d(2)

    def forward(self, pixels: Tensor) -> Tensor:
        fine = self.fine(pixels.permute(0, 3, 1, 2).float() / 255)  # [B, 2, 8, 8]
        return self.coarse(fine).sum((2, 3))


def test_a_coarse_map_and_a_fine_one_are_multiplied() -> None:
    """The coarse cell at (8, 8) holds the red patch at (12, 12); the fine map says where in it."""
    pixels = black()
    pixels[:, 12:16, 12:16, 0] = 255
    net = TwoScales()
    coarse, fine = layers_to_show(net, pixels)
    assert (coarse.module, fine.module) == (net.coarse, net.fine)
    both, one = (heat_maps(net, pixels, torch.tensor([0]), some)[0]
                 for some in ((coarse, fine), (coarse,)))  # fmt: skip
    assert both[9, 9] == 0 < one[9, 9]
    y, x = np.unravel_index(both.argmax(), both.shape)
    assert 12 <= y < 16
    assert 12 <= x < 16


class ChannelsLast(nn.Module):
    """A network with a map [B, C, h, w], and behind it one as Swin has it: [B, h, w, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.spots = Spots()
        self.turned = nn.Identity()
        self.head = nn.Linear(2, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.spots.cells(pixels.permute(0, 3, 1, 2).float())
        wide = maps.permute(0, 2, 3, 1).repeat(1, 1, 1, 8)  # [B, 8, 8, 16]
        turned: Tensor = self.turned(wide)
        logits: Tensor = self.head(turned.mean((1, 2))[:, :2])
        return logits


class OneRelu(nn.Module):
    """One module after the convolution and after the first dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = Spots().cells
        self.relu = nn.ReLU()
        self.dense = nn.Linear(2, 2, bias=False)
        nn.init.eye_(self.dense.weight)

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.relu(self.cells(pixels.permute(0, 3, 1, 2).float() / 255))  # [B, 2, 8, 8]
        logits: Tensor = self.relu(self.dense(maps.sum((2, 3))))
        return logits


class OneReluAtTwoScales(TwoScales):
    """One module on cells of 4 x 4 pixels and on those of 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, pixels: Tensor) -> Tensor:
        fine = self.relu(self.fine(pixels.permute(0, 3, 1, 2).float() / 255))
        return self.relu(self.coarse(fine)).sum((2, 3))


class TestModuleCalledTwice:
    def test_a_call_without_a_map_is_passed_over(self) -> None:
        pixels = black()
        pixels[:, 8:12, 20:24, 0] = 255
        found = maps_of(OneRelu(), pixels, 0)[0]
        y, x = np.unravel_index(found.argmax(), found.shape)
        assert 8 <= y < 12
        assert 20 <= x < 24

    def test_each_call_has_its_own_map(self) -> None:
        pixels = black()
        pixels[:, 12:16, 12:16, 0] = 255
        net = OneReluAtTwoScales()
        assert layers_to_show(net, pixels) == (Layer(net.relu, 8, 1), Layer(net.relu, 4, 0))
        both = maps_of(net, pixels, 0)
        assert np.array_equal(both, maps_of(TwoScales(), pixels, 0))


class TestLayers:
    @pytest.mark.parametrize(
        ("make", "side", "cells"),
        [
            (lambda: SeedCNN(2, image_size=150), 150, [2]),
            (lambda: SeedCNN(2, image_size=150, single_logit=True), 150, [2]),
            (lambda: SmallResNet(2), 64, [16, 8]),
            (lambda: EfficientNetLite0(2), 224, [32]),
            (lambda: EfficientNetLite0(2), 64, [16, 8]),  # the last stage has 2 x 2 cells
        ],
        ids=["seed", "single logit", "small resnet", "lite0", "lite0 small"],
    )
    def test_the_last_map_that_can_tell_a_place(
        self, make: Callable[[], nn.Module], side: int, cells: list[int]
    ) -> None:
        net = explainable(make())
        pixels = torch.randint(0, 256, (1, side, side, 3), dtype=torch.uint8)
        layers = layers_to_show(net, pixels)
        assert [layer.cell for layer in layers] == cells
        found = heat_maps(net, pixels, torch.tensor([1]), layers)
        assert found.shape == (1, side, side)
        assert np.isfinite(found).all()

    def test_dense_layers_have_no_map(self) -> None:
        class Dense(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.flat = nn.Flatten()
                self.head = nn.Linear(SIDE * SIDE * 3, 2)

            def forward(self, pixels: Tensor) -> Tensor:
                logits: Tensor = self.head(self.flat(pixels.float()))
                return logits

        assert layers_to_show(Dense(), black()) == ()
        assert first_filters(Dense()) is None

    def test_a_map_with_its_channels_last_is_none(self) -> None:
        net = ChannelsLast()
        assert layers_to_show(net, black()) == (Layer(net.spots.cells, CELL),)


class TestFirstFilters:
    def test_zero_is_grey_and_the_largest_weight_white(self) -> None:
        net = SeedCNN(2, image_size=32)
        with torch.no_grad():
            net.conv.weight.zero_()
            net.conv.weight[0, 2, 1, 1] = 0.5
            net.conv.weight[0, 0, 0, 0] = -0.25
        found = first_filters(net)
        assert found is not None
        assert found.shape == (32, 3, 3, 3)
        assert found[0, 1, 1].tolist() == [128, 128, 255]
        assert found[0, 0, 0].tolist() == [64, 128, 128]  # 128 - 127 / 2, half to even
        assert (found[1] == 128).all()

    def test_others_have_none(self) -> None:
        assert first_filters(nn.Conv2d(1, 4, 3)) is None
        assert first_filters(nn.Conv2d(3, 4, 1)) is None
