"""How many epochs fit into a time."""

import pytest
import torch
from torch import Tensor, nn

from src import budget
from src.budget import Budget, seconds_to_validate
from src.pace import Pace


@pytest.mark.parametrize(
    ("seconds", "epochs"),
    [
        (1000.0, 9),  # 0.95 * 1000 - 2 = 948 s, and 100.5 s for an epoch
        (108.0, 1),
        (0.0, 1),
        (-50.0, 1),
    ],
)
def test_epochs_by_hand(seconds: float, epochs: int) -> None:
    assert Budget(step=0.5, steps=180, validation=10.0).epochs(seconds) == epochs


@pytest.mark.parametrize(
    ("pace", "workers", "cores", "seconds"),
    [
        (Pace(0.2, 1.0, True, 0.3), 0, 2, 1.2),  # one after the other
        (Pace(0.2, 1.0, True, 0.3), 2, 2, 1.15),  # both cores make the data's 0.3 s
        (Pace(0.2, 1.0, False, 0.3), 1, 8, 1.0),  # beside the GPU's step
        (Pace(0.2, 1.0, False, 3.0), 2, 8, 1.5),  # the GPU waits
    ],
)
def test_a_step_and_its_batch_by_hand(pace: Pace, workers: int, cores: int, seconds: float) -> None:
    assert pace.seconds(workers, cores) == pytest.approx(seconds)


class Noting(nn.Module):
    def __init__(self, seen: list[tuple[bool, bool]]) -> None:
        super().__init__()
        self.seen = seen

    def __deepcopy__(self, memo: object) -> "Noting":
        return Noting(self.seen)

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append((self.training, torch.is_inference_mode_enabled()))
        return image


def test_a_validation_is_timed_as_it_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_SECONDS", 0.01)
    seen: list[tuple[bool, bool]] = []
    net, cpu = Noting(seen), torch.device("cpu")
    assert seconds_to_validate(net, iter([{"image": torch.zeros(1)}]), cpu, "32-true") > 0
    assert set(seen) == {(False, True)}
    assert net.training
    assert seconds_to_validate(net, iter([]), cpu, "32-true") == 0
