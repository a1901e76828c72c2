"""The metrics of a training epoch, over processes and over a resume."""

import pytest
import torch
from torch import Tensor

from src.train_metrics import State, TrainMetrics

Batch = tuple[Tensor, Tensor, Tensor]  # loss, logits [B, 3], targets [B]


def batches(process: int, count: int) -> list[Batch]:
    """Return seeded batches of 1 to 4 samples, whose float sums depend on their order."""
    rng = torch.Generator().manual_seed(process)
    found = []
    for number in range(count):
        size = 1 + number % 4
        logits = torch.randn(size, 3, generator=rng)
        targets = torch.randint(3, (size,), generator=rng)
        found.append((torch.rand((), generator=rng) * 10**number, logits, targets))
    return found


def fed(found: list[Batch], metrics: TrainMetrics | None = None) -> TrainMetrics:
    metrics = metrics or TrainMetrics(3)
    for batch in found:
        metrics.update(*batch)
    return metrics


def states(metrics: TrainMetrics) -> dict[str, Tensor]:
    """Return the states of one process alone."""
    return metrics.state(lambda tensor: tensor)


def gathered(processes: list[TrainMetrics]) -> State:
    """Return what `state` returns under so many processes."""
    everyone = [states(metrics) for metrics in processes]
    order = iter(everyone[0])
    return processes[0].state(
        lambda _: torch.stack([own[name] for name in [next(order)] for own in everyone])
    )


class TestByHand:
    def test_two_batches(self) -> None:
        metrics = TrainMetrics(3)
        right = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
        metrics.update(torch.tensor(0.5), right, torch.tensor([0, 1, 0]))  # 2 of 3
        metrics.update(torch.tensor(2.5), right[:1], torch.tensor([0]))  # 1 of 1
        # (3 * 0.5 + 1 * 2.5) / 4 and 3 / 4
        assert metrics.compute() == {"train/loss": 1.0, "train/accuracy": 0.75}

    def test_nothing_before_a_batch(self) -> None:
        metrics = TrainMetrics(3)
        assert metrics.compute() == {}
        fed(batches(0, 2), metrics)
        metrics.reset()
        assert metrics.compute() == {}

    def test_a_loss_that_is_no_number_is_shown(self) -> None:
        metrics = fed([(torch.tensor(torch.nan), *batches(0, 1)[0][1:])])
        assert str(metrics.compute()["train/loss"]) == "nan"

    def test_nothing_of_it_is_in_the_weights(self) -> None:
        assert fed(batches(0, 2)).state_dict() == {}

    def test_it_holds_no_graph(self) -> None:
        loss = torch.tensor(1.0, requires_grad=True)
        metrics = fed([(loss, *batches(0, 1)[0][1:])])
        assert not any(tensor.requires_grad for tensor in states(metrics).values())


class TestOverAResume:
    @pytest.mark.parametrize("cut", range(9))
    def test_of_one_process(self, cut: int) -> None:
        every = batches(0, 8)
        saved = states(fed(every[:cut]))
        resumed = TrainMetrics(3)
        resumed.restore(saved, rank=0, world_size=1)
        if cut:
            assert resumed.compute() == fed(every[:cut]).compute()
        fed(every[cut:], resumed)
        whole = fed(every)
        assert resumed.compute() == whole.compute()
        for name, tensor in states(whole).items():
            assert torch.equal(states(resumed)[name], tensor), name
            assert states(resumed)[name].dtype == tensor.dtype, name

    def test_of_three_processes_each_takes_its_own(self) -> None:
        before = [fed(batches(process, 5)) for process in range(3)]
        saved = gathered(before)
        assert {len(tensor) for tensor in saved.values()} == {3}
        for process in range(3):
            resumed = TrainMetrics(3)
            resumed.restore(saved, process, 3)
            for name, tensor in states(before[process]).items():
                assert torch.equal(states(resumed)[name], tensor), (process, name)

    @pytest.mark.parametrize("processes", [1, 2, 4])
    def test_of_another_number_of_processes_the_first_takes_all(self, processes: int) -> None:
        saved = gathered([fed(batches(process, 5)) for process in range(3)])
        now = [TrainMetrics(3) for _ in range(processes)]
        for rank, metrics in enumerate(now):
            metrics.restore(saved, rank, processes)
        total = gathered(now)
        for name, tensor in saved.items():
            assert torch.equal(total[name].sum(), tensor.sum()), name
        assert all(not tensor.any() for metrics in now[1:] for tensor in states(metrics).values())
        # 5 batches of 1, 2, 3, 4 and 1 samples on each of three processes
        counts = fed([], now[0]).counts.compute().flatten().tolist()
        assert counts[-1] == 33

    def test_a_state_is_plain_and_on_the_cpu(self) -> None:
        saved = states(fed(batches(0, 2)))
        assert set(saved) == {"counts.tp", "counts.fp", "counts.tn", "counts.fn", "loss.sum_value"}
        assert all(type(tensor) is Tensor and tensor.dim() == 1 for tensor in saved.values())

    @pytest.mark.filterwarnings("error")
    def test_compute_does_not_warn_that_it_has_seen_nothing(self) -> None:
        resumed = TrainMetrics(3)
        resumed.restore(states(fed(batches(0, 2))), 0, 1)
        assert set(resumed.compute()) == {"train/loss", "train/accuracy"}
