"""Loss and accuracy of an epoch of training, that a checkpoint inside the epoch can hold."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric, SumMetric
from torchmetrics.classification import MulticlassStatScores

State = dict[str, Tensor]  # name of a metric's state -> [P], one value for each process


class TrainMetrics(nn.Module):
    """Counts what is right and sums the loss; exact over processes and over a resume.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.counts = MulticlassStatScores(num_classes, average="micro")
        self.loss = SumMetric(nan_strategy="disable")

    def update(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch.

        Args:
            loss: Its mean loss, a float.
            logits: Float [B, C].
            targets: int64 [B].
        """
        self.counts.update(logits, targets)
        self.loss.update(loss.detach() * len(logits))

    def reset(self) -> None:
        """Start counting anew."""
        self.counts.reset()
        self.loss.reset()

    def compute(self) -> dict[str, float]:
        """Return train/loss and train/accuracy, alike on all processes; nothing before a batch."""
        if not self.loss.update_called:
            return {}
        right, *_, count = self.counts.compute().flatten().tolist()
        total = float(self.loss.compute())
        return {"train/loss": total / count, "train/accuracy": right / count}

    def state(self, gather: Callable[[Tensor], Any]) -> State:
        """Return the states of every process: float sums over all would differ in their last bits.

        Args:
            gather: From a tensor of one value to those of all processes.
        """
        return {
            f"{label}.{name}": gather(value).reshape(-1).cpu()
            for label, metric in self._metrics().items()
            for name, value in _tensors(metric)
        }

    def restore(self, state: State, rank: int, world_size: int) -> None:
        """Take the states back; those of another number of processes all go to the first."""
        for label, metric in self._metrics().items():
            for name, value in _tensors(metric):
                saved = state[f"{label}.{name}"]
                if len(saved) == world_size:
                    own = saved[rank]
                else:
                    own = saved.sum() if rank == 0 else saved.new_zeros(())
                setattr(metric, name, own.reshape(value.shape).to(value))
            metric._update_count = 1  # else compute would warn that it has seen nothing

    def _metrics(self) -> dict[str, Metric]:
        return {"counts": self.counts, "loss": self.loss}


def _tensors(metric: Metric) -> list[tuple[str, Tensor]]:
    return [(name, v) for name, v in metric.metric_state.items() if isinstance(v, Tensor)]
