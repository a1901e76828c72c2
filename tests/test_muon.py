import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from src.errors import UserError
from src.muon import Muon, orthogonalized
from src.param_groups import param_groups


def pulled(x: float) -> float:
    """Return what five of the iterations make of one singular value."""
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    return x


def one_step(parameter: nn.Parameter, gradient: torch.Tensor, **options: float) -> torch.Tensor:
    """Return what a first step adds to a parameter."""
    before = parameter.detach().clone()
    parameter.grad = gradient
    Muon([parameter], **options).step()  # type: ignore[arg-type]
    return parameter.detach() - before


def test_orthogonal_rows_of_one_length_keep_their_directions() -> None:
    rows = torch.eye(4, 9) * 7  # singular values 7, after the norm 7 / 14
    assert torch.allclose(orthogonalized(rows), torch.eye(4, 9) * pulled(0.5), atol=1e-5)


def test_tall_matrices_are_turned() -> None:
    matrix = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(orthogonalized(matrix), orthogonalized(matrix.T).T)


@pytest.mark.parametrize("shape", [(256, 2304), (64, 27), (8, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    wanted = left @ torch.diag((values / matrix.norm()).apply_(pulled)) @ right
    found = orthogonalized(matrix)
    assert torch.allclose(found.double(), wanted, atol=1e-4)
    assert 0.6 < torch.linalg.svdvals(found).median() < 1.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_matrix_of_few_directions_stays_finite(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    thin = torch.randn(64, 2, generator=generator) @ torch.randn(2, 576, generator=generator)
    found = orthogonalized(thin.to(dtype))
    values = torch.linalg.svdvals(found.float())
    assert found.dtype == dtype and 0.6 < values[1] <= values[0] < 1.3
    assert torch.equal(orthogonalized(torch.zeros(3, 5, dtype=dtype)), torch.zeros(3, 5).to(dtype))


def test_what_float32_cannot_tell_from_nothing_stays_small() -> None:
    generator = torch.Generator().manual_seed(2)
    thin = torch.randn(64, 2, generator=generator) @ torch.randn(2, 576, generator=generator)
    assert torch.linalg.svdvals(orthogonalized(thin))[2] < 1e-2


def test_the_first_step_of_a_kernel_by_hand() -> None:
    """Rows (3, 4) and (-4, 3): both singular values 5, by the norm 1 / sqrt(2); 8 weights a row."""
    gradient = torch.zeros(2, 2, 2, 2)
    gradient[0, 0, 0, 0], gradient[0, 1, 1, 1] = 3.0, 4.0
    gradient[1, 0, 0, 0], gradient[1, 1, 1, 1] = -4.0, 3.0
    change = one_step(nn.Parameter(torch.ones(2, 2, 2, 2)), gradient, lr=0.1, weight_decay=0.5)
    size = 0.1 * 0.2 * 8**0.5 * pulled(0.5**0.5)
    wanted = -0.1 * 0.5 - gradient / 5 * size  # the decay of ones, and the directions
    assert torch.allclose(change, wanted, atol=1e-6)


def test_kernels_look_ahead_along_the_average() -> None:
    """1 and a quarter turn at momentum 0.5: average (1/4, 1/2), looked ahead (1/8, 3/4)."""
    parameter = nn.Parameter(torch.zeros(2, 2, 1))
    optimizer = Muon([parameter], lr=1.0, momentum=0.5, weight_decay=0)
    for gradient in ([[1.0, 0.0], [0.0, 1.0]], [[0.0, -1.0], [1.0, 0.0]]):
        before = parameter.detach().clone()
        parameter.grad = torch.tensor(gradient)[:, :, None]
        optimizer.step()
    change = (parameter.detach() - before)[:, :, 0]
    assert change[1, 0] / change[0, 0] == pytest.approx(6)
    assert torch.allclose(change[0], torch.stack([change[1, 1], -change[1, 0]]))


@pytest.mark.parametrize(
    "shape",
    [(3, 4), (5,), (6, 1, 3, 3), (1, 7, 5)],
    ids=["linear", "bias", "depthwise", "positions"],
)
def test_all_else_moves_as_by_adamw(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(3)
    ours = nn.Parameter(torch.randn(shape, generator=generator))
    theirs = nn.Parameter(ours.detach().clone())
    common = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.99), "eps": 1e-8}
    pair = Muon([ours], **common), torch.optim.AdamW([theirs], **common)  # type: ignore[arg-type]
    for _ in range(5):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        for optimizer in pair:
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_kernel_moves_as_a_matrix_by_torch() -> None:
    """torch.optim.Muon iterates in bfloat16: the directions agree, and the sizes within 1 %."""
    gradient = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(4))
    ours = one_step(nn.Parameter(torch.zeros(8, 4, 3, 3)), gradient, weight_decay=0, lr=0.01)
    matrix = nn.Parameter(torch.zeros(8, 36))
    matrix.grad = gradient.flatten(1)
    options: dict[str, Any] = {"momentum": 0.9, "adjust_lr_fn": "match_rms_adamw"}
    torch.optim.Muon([matrix], lr=0.01, weight_decay=0, **options).step()  # type: ignore[no-untyped-call]
    theirs = matrix.detach()
    assert torch.cosine_similarity(ours.flatten(), theirs.flatten(), 0) > 0.999
    assert ours.norm() / theirs.norm() == pytest.approx(1, abs=0.01)


def test_what_has_no_gradient_stays() -> None:
    frozen = nn.Parameter(torch.ones(2, 2, 1))
    Muon([frozen], weight_decay=0.5).step()
    assert torch.equal(frozen, torch.ones(2, 2, 1))


def test_the_layout_in_memory_changes_nothing_but_last_bits() -> None:
    gradient = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(5))
    plain = one_step(nn.Parameter(torch.zeros(8, 4, 3, 3)), gradient)
    last = torch.zeros(8, 4, 3, 3).to(memory_format=torch.channels_last)
    turned = one_step(nn.Parameter(last), gradient.to(memory_format=torch.channels_last))
    assert torch.allclose(plain, turned, atol=1e-7)


def test_goes_on_from_its_state_to_the_same_bytes() -> None:
    def train(steps: range, net: nn.Module, optimizer: Muon) -> None:
        for step in steps:
            pixels = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            torch.autograd.backward(net(pixels).square().mean())
            optimizer.step()

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    optimizer = Muon(param_groups(net))
    train(range(3), net, optimizer)
    other = copy.deepcopy(net)
    resumed = Muon(param_groups(other), lr=0.5)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(range(3, 6), net, optimizer)
    train(range(3, 6), other, resumed)
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_calls_a_closure_with_gradients_on() -> None:
    parameter = nn.Parameter(torch.ones(2))

    def loss() -> torch.Tensor:
        parameter.grad = None
        value = parameter.square().sum()
        torch.autograd.backward(value)
        return value

    assert Muon([parameter], lr=0.1, weight_decay=0).step(loss) == 2
    assert torch.allclose(parameter, torch.full((2,), 0.9))


def test_half_precision_without_a_gradient_stays_a_number() -> None:
    bias = nn.Parameter(torch.ones(3, dtype=torch.float16))
    assert torch.equal(one_step(bias, torch.zeros_like(bias), weight_decay=0), torch.zeros(3))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"momentum": 1.0}, r"init_args\.momentum is 1\.0; allowed is 0 up to but not 1\."),
        (
            {"betas": (0.9, -0.1)},
            r"init_args\.betas is \(0\.9, -0\.1\); allowed is two of 0 up to but not 1\.",
        ),
        ({"lr": math.nan}, r"init_args\.lr is nan; allowed is 0 or more\."),
        ({"weight_decay": -1}, r"init_args\.weight_decay is -1; allowed is 0 or more\."),
        ({"eps": 0.0}, r"init_args\.eps is 0\.0; allowed is above 0\."),
    ],
)
def test_numbers_out_of_range(options: dict[str, float], named: str) -> None:
    with pytest.raises(UserError, match=named):
        Muon([nn.Parameter(torch.ones(2))], **options)  # type: ignore[arg-type]
