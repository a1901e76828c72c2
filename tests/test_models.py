"""The networks: counts, a forward worked out in numpy, gradients, sizes, dtypes, errors."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from src.errors import UserError
from src.models import EfficientNetLite0, SeedCNN, SmallResNet
from src.models.normalize import Normalize
from src.param_groups import layers_of

SMALL = {
    "SeedCNN": lambda n=2: SeedCNN(n, image_size=32),
    "SmallResNet": SmallResNet,
    "EfficientNetLite0": EfficientNetLite0,
}
every_net = pytest.mark.parametrize("name", list(SMALL))


def pictures(batch: int, height: int, width: int | None = None, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, height, width or height, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def make(name: str, num_classes: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return SMALL[name](num_classes)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# Parameters


def test_the_seed_has_its_parameters() -> None:
    net = SeedCNN()
    assert count(net.conv) == 3 * 3 * 3 * 32 + 32 == 896
    assert count(net.dense) == 74 * 74 * 32 * 64 + 64
    assert count(net.head) == 64 + 1
    assert count(net) == 11_215_873


def test_the_seed_starts_as_keras_does() -> None:
    torch.manual_seed(0)
    net = SeedCNN(image_size=32)
    for layer, fan_in, fan_out in (
        (net.conv, 3 * 9, 32 * 9),
        (net.dense, 32 * 15 * 15, 64),
        (net.head, 64, 1),
    ):
        limit = math.sqrt(6 / (fan_in + fan_out))
        assert 0.9 * limit < layer.weight.abs().max() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.2)
        assert not layer.bias.any()


def test_the_small_resnet_has_its_parameters() -> None:
    stem = 3 * 9 * 32 + 2 * 32
    stages = 0
    for before, width in ((32, 64), (64, 128), (128, 256)):
        stages += 9 * before * width + 9 * width * width + before * width + 3 * 2 * width
    head = 256 * 2 + 2
    assert count(SmallResNet()) == stem + stages + head == 1_208_354
    assert count(SmallResNet(pooling="mean_max")) == 1_208_354 + 512
    assert count(SmallResNet(1000)) <= 2_000_000


def test_each_block_starts_as_its_shortcut() -> None:
    block = SmallResNet(widths=(8,), blocks=(2,)).stages[0][1].eval()
    x = torch.rand(2, 8, 5, 5)
    assert torch.equal(block(x), x)


# Forward


def seed_forward_in_numpy(net: SeedCNN, pixels: Tensor) -> np.ndarray:
    """The seed's layers one by one, in Keras's order: convolve, ReLU, pool, flatten, dense."""
    weight = {key: value.double().numpy() for key, value in net.state_dict().items()}
    x = pixels.double().numpy() / 255  # [B, S, S, 3]
    windows = sliding_window_view(x, (3, 3), axis=(1, 2))  # [B, S - 2, S - 2, 3, 3, 3]
    x = np.einsum("bhwcij,ocij->bhwo", windows, weight["conv.weight"]) + weight["conv.bias"]
    x = np.maximum(x, 0)
    side = x.shape[1] // 2
    x = x[:, : 2 * side, : 2 * side].reshape(len(x), side, 2, side, 2, 32).max(axis=(2, 4))
    x = x.reshape(len(x), -1)  # height, width, channel
    x = np.maximum(x @ weight["dense.weight"].T + weight["dense.bias"], 0)
    return x @ weight["head.weight"].T + weight["head.bias"]  # [B, 1] or [B, K]


@pytest.mark.parametrize("image_size", [4, 9, 12])
def test_the_seed_computes_what_keras_computes(image_size: int) -> None:
    torch.manual_seed(image_size)
    net = SeedCNN(image_size=image_size).double()
    nn.init.normal_(net.conv.bias, std=0.3)  # so that the ReLU after it has something to do
    nn.init.normal_(net.dense.bias, std=0.3)
    nn.init.normal_(net.head.bias)
    pixels = pictures(3, image_size)
    z = seed_forward_in_numpy(net, pixels)
    expected = np.concatenate([np.zeros_like(z), z], axis=1)
    np.testing.assert_allclose(net(pixels).detach().numpy(), expected, rtol=0, atol=1e-6)


def test_the_seed_with_three_outputs_computes_what_keras_computes() -> None:
    torch.manual_seed(0)
    net = SeedCNN(3, image_size=10).double()
    pixels = pictures(2, 10)
    expected = seed_forward_in_numpy(net, pixels)
    np.testing.assert_allclose(net(pixels).detach().numpy(), expected, rtol=0, atol=1e-6)


def test_pooling_first_gives_the_same_numbers_as_relu_first() -> None:
    torch.manual_seed(0)
    net = SeedCNN(image_size=21)
    nn.init.normal_(net.conv.bias)
    x = net.conv(net.normalize(pictures(4, 21)))
    assert torch.equal(F.relu(net.pool(x)), net.pool(F.relu(x)))
    seen = {}
    net.dense.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    net(pictures(4, 21))
    expected = F.max_pool2d(F.relu(x), 2).permute(0, 2, 3, 1).flatten(1)
    assert torch.equal(seen["x"], expected)


def test_one_output_is_the_binary_network() -> None:
    torch.manual_seed(0)
    net = SeedCNN(image_size=16)
    logits = net(pictures(6, 16))
    target = torch.tensor([0, 1, 1, 0, 1, 0])
    assert net.head.out_features == 1
    assert not logits[:, 0].any()
    z = logits[:, 1]
    assert z.std() > 0
    torch.testing.assert_close(logits.softmax(1)[:, 1], z.sigmoid())
    torch.testing.assert_close(
        F.cross_entropy(logits, target),
        F.binary_cross_entropy_with_logits(z, target.float()),
    )


def test_two_outputs_where_asked() -> None:
    net = SeedCNN(2, single_logit=False, image_size=16)
    assert net.head.out_features == 2
    assert net(pictures(3, 16))[:, 0].all()


def test_the_small_resnet_shares_one_rate_of_halving() -> None:
    net = SmallResNet().eval()
    seen = []
    for module in (net.stem, *net.stages):
        module.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape)))
    net(pictures(1, 128))
    assert seen == [(1, 32, 32, 32), (1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4)]


def test_the_head_of_the_small_resnet_sees_mean_and_maximum() -> None:
    net = SmallResNet(pooling="mean_max").eval()
    seen: list[Any] = []
    net.stages.register_forward_hook(lambda _, __, output: seen.append(output))
    net.head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    net(pictures(2, 64))
    maps = seen[0].flatten(2)  # [2, 256, 4]
    assert torch.equal(seen[1][:, 256:], maps.sort(2).values[..., -1])
    torch.testing.assert_close(seen[1][:, :256], maps.sum(2) / 4)


def test_dropout_acts_while_training_only() -> None:
    torch.manual_seed(0)
    net = SmallResNet(dropout=0.5)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.0
    pixels = pictures(4, 32)
    assert not torch.equal(net(pixels), net(pixels))
    net.eval()
    assert torch.equal(net(pixels), net(pixels))


# What every net promises


@every_net
@pytest.mark.parametrize("num_classes", [2, 3, 1000])
def test_logits_for_every_number_of_classes(name: str, num_classes: int) -> None:
    net = make(name, num_classes).eval()
    logits = net(pictures(3, 32))
    assert logits.shape == (3, num_classes)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@every_net
@pytest.mark.parametrize("num_classes", [-1, 0, 1, 1001])
def test_a_number_of_classes_out_of_range_is_refused(name: str, num_classes: int) -> None:
    with pytest.raises(UserError, match=rf"num_classes is {num_classes}; .* 2 to 1000"):
        make(name, num_classes)


@every_net
def test_every_parameter_receives_a_gradient(name: str) -> None:
    net = make(name)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pixels, target = pictures(8, 32), torch.tensor([0, 1] * 4)
    # Twice: a residual branch starts at zero, and its weights move once its last norm has.
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(net(pixels), target).backward()
        optimizer.step()
    still = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@every_net
def test_one_batch_can_be_learned_by_heart(name: str) -> None:
    net = make(name, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    pixels, target = pictures(9, 32), torch.arange(9) % 3
    losses: list[float] = []
    while len(losses) < 40 and (not losses or losses[-1] > 0.1):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(pixels), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] <= 0.1 < losses[0]


@every_net
def test_the_attributes_that_the_record_reads(name: str) -> None:
    net = make(name, 5)
    assert len(net.mean) == len(net.std) == 3
    assert net.image_size == {"SeedCNN": 32}.get(name)
    assert isinstance(net.head, nn.Linear)
    assert list(net.modules())[-1] is net.head
    white, black = torch.full((1, 32, 32, 3), 255).byte(), torch.zeros(1, 32, 32, 3).byte()
    for pixels, value in ((white, 1.0), (black, 0.0)):
        expected = (value - torch.tensor(net.mean)) / torch.tensor(net.std)
        torch.testing.assert_close(net.normalize(pixels)[0, :, 0, 0], expected)


@every_net
def test_the_state_holds_no_normalisation(name: str) -> None:
    assert not [key for key in make(name).state_dict() if "normalize" in key]


@every_net
def test_memory_stays_channels_last(name: str) -> None:
    net = make(name)
    seen = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            module.register_forward_hook(lambda _, inputs, output: seen.extend((*inputs, output)))
    net(pictures(4, 32))
    weights = [p for p in net.parameters() if p.ndim == 4]
    assert len(seen) >= 4
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in (*seen, *weights))


@every_net
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float64, 1e-4)], ids=["bf16", "64"]
)
def test_the_whole_network_changes_its_dtype(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    net = make(name).eval()
    pixels = pictures(4, 32)
    expected = net(pixels)
    logits = net.to(dtype)(pixels)
    assert logits.dtype == dtype
    assert net.normalize(pixels).dtype == dtype
    torch.testing.assert_close(logits.float(), expected, rtol=tolerance, atol=tolerance)


@every_net
def test_autocast_leaves_the_parameters_alone(name: str) -> None:
    net = make(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(net(pictures(4, 32)), torch.tensor([0, 1, 0, 1]))
    loss.backward()
    assert {p.grad.dtype for p in net.parameters()} == {torch.float32}
    assert loss.isfinite()


@every_net
@pytest.mark.parametrize(
    ("pixels", "found"),
    [
        (torch.zeros(2, 32, 32, 3), r"torch\.float32 \[2, 32, 32, 3\]"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), r"torch\.uint8 \[2, 3, 32, 32\]"),
        (torch.zeros(32, 32, 3, dtype=torch.uint8), r"torch\.uint8 \[32, 32, 3\]"),
    ],
    ids=["float", "channels first", "no batch"],
)
def test_anything_but_uint8_pictures_is_refused(name: str, pixels: Tensor, found: str) -> None:
    with pytest.raises(ValueError, match=rf"given {found}; it takes torch\.uint8 \[batch, height"):
        make(name)(pixels)


# Sizes


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (75, 150), (161, 99)])
def test_the_small_resnet_takes_any_size(height: int, width: int) -> None:
    net = make("SmallResNet")
    assert net(pictures(2, height, width)).isfinite().all()
    assert net.eval()(pictures(1, height, width)).shape == (1, 2)


@pytest.mark.parametrize(("height", "width"), [(32, 31), (33, 32), (150, 150)])
def test_the_seed_takes_its_size_alone(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=rf"pictures of {height} x {width} px; .* 32 x 32"):
        make("SeedCNN")(pictures(1, height, width))


def test_the_seed_needs_room_for_its_layers() -> None:
    with pytest.raises(UserError, match=r"image_size is 3; SeedCNN takes 4 px or more"):
        SeedCNN(image_size=3)


# Arguments of the small resnet


def test_widths_and_blocks_are_what_they_say() -> None:
    net = SmallResNet(stem_width=4, widths=[6, 10], blocks=[1, 3])
    assert net.stem[0].out_channels == 4
    assert [len(stage) for stage in net.stages] == [1, 3]
    assert [block.conv2.out_channels for stage in net.stages for block in stage] == [6, 10, 10, 10]
    assert net(pictures(2, 32)).shape == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": (8, 8)}, r"widths names 2 stages \(\[8, 8\]\) and blocks 3"),
        ({"widths": (), "blocks": ()}, r"widths names 0 stages .* at least one"),
        ({"blocks": (1, 0, 1)}, r"blocks \[1, 0, 1\]; each number must be 1 or more"),
        ({"stem_width": 0}, r"stem_width is 0"),
        ({"dropout": 1.0}, r"dropout is 1\.0; it is a share"),
        ({"dropout": math.nan}, r"dropout is nan"),
        ({"pooling": "max"}, r"pooling is 'max'; allowed are mean, mean_max\."),
    ],
)
def test_arguments_that_make_no_network_are_refused(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        SmallResNet(**arguments)


# Normalisation


def test_normalisation_by_hand() -> None:
    pixels = torch.tensor([[0, 51, 102], [255, 204, 51]], dtype=torch.uint8).reshape(1, 1, 2, 3)
    normalized = Normalize(mean=(0.0, 0.5, 0.2), std=(1.0, 0.5, 0.4))(pixels)
    assert normalized.shape == (1, 3, 1, 2)
    # 0, 51, 102, 204, 255 of 255 are 0, 0.2, 0.4, 0.8, 1.
    expected = torch.tensor([[0.0, 1.0], [-0.6, 0.6], [0.5, 0.0]]).reshape(1, 3, 1, 2)
    torch.testing.assert_close(normalized, expected)


def test_normalisation_leaves_the_pictures_alone_and_any_layout_right() -> None:
    normalize = Normalize((0.5,) * 3, (0.5,) * 3)
    pixels = pictures(2, 6, 8)
    before = pixels.clone()
    mirrored = pixels.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)  # another layout
    result = normalize(mirrored)
    assert torch.equal(pixels, before)
    assert torch.equal(result, normalize(pixels))
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_small_resnet_names_its_layers_from_the_input_to_the_head() -> None:
    net = SmallResNet(2, stem_width=4, widths=[4, 8], blocks=[2, 1])
    assert net.layers() == [net.stem, net.stages[0], net.stages[1], net.head]
    assert layers_of(net, "x")  # and leave no parameter out
