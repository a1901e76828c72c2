"""How many workers a training is worth, and which precision: the rule, and that it is measured."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src import pace
from src.bench import main
from src.bench_report import probe_table
from src.cases import Case, case_of
from src.errors import RunFailureError
from src.models import SmallResNet
from src.pace import Pace, make_step, measure, seconds_of
from src.probe import Way, probe

CPU = torch.device("cpu")


class Mean(nn.Module):
    """Logits from the mean of the pixels; counts how often it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.drop = nn.Parameter(torch.ones(2)), nn.Dropout(0.5)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.drop(pixels.float().mean((1, 2, 3))[:, None] * self.scale)


def batches() -> Iterator[dict[str, Tensor]]:
    while True:
        yield {
            "image": torch.ones(2, 4, 4, 3, dtype=torch.uint8),
            "target": torch.zeros(2, dtype=torch.int64),
        }


class TestWorkers:
    @pytest.mark.parametrize(
        ("data", "beside", "cores", "workers"),
        [
            (0.02, False, 8, 0),  # two hundredths of the step's time: not worth a process
            (0.1, False, 8, 1),
            (0.1, True, 8, 0),  # it would take the cores from the step
            (0.6, True, 8, 1),
            (1.0, False, 8, 1),
            (2.5, False, 8, 3),  # three keep up, two don't
            (50.0, True, 8, 8),  # no more than there are cores
            (0.5, False, 0, 1),
        ],
    )
    def test_as_few_as_keep_up(self, data: float, beside: bool, cores: int, workers: int) -> None:
        assert Pace(data, 1.0, beside, data).workers(cores) == workers

    def test_a_worker_is_one_thread(self) -> None:
        """What four threads make in a step's time takes four processes."""
        assert Pace(1.0, 1.0, beside=False, worker=3.5).workers(8) == 4
        assert Pace(0.01, 1.0, beside=False, worker=0.04).workers(8) == 0

    def test_seconds_are_the_median_without_the_first(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Calls of 9, 0.5, 1 and 3 seconds; before the third and later ones, a look at the clock.
        clock = iter([0, 0, 9, 9, 9.5, 9.5, 9.5, 10.5, 10.5, 10.5, 13.5, 13.5])
        monkeypatch.setattr(pace.time, "perf_counter", lambda: next(clock))
        assert seconds_of(lambda: None, 12) == 1.0

    def test_two_calls_at_least(self) -> None:
        calls = []
        seconds_of(lambda: calls.append(1), 0.0)
        assert len(calls) == 2


class TestMeasure:
    def test_leaves_the_network_and_the_random_numbers_as_they_are(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pace, "SECONDS", 0.01)
        net = Mean()
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        found = measure(net, nn.CrossEntropyLoss(), batches(), CPU, "32-true")
        assert found.data > 0 and found.step > 0
        assert net.scale.grad is None and net.scale.tolist() == [1.0, 1.0]
        assert torch.equal(torch.rand(2), expected)

    def test_takes_the_loss_to_the_type_of_the_network(self) -> None:
        batch = {
            "image": torch.ones(2, 32, 32, 3, dtype=torch.uint8),
            "target": torch.tensor([0, 1]),
        }
        loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))
        make_step(SmallResNet(2, 4, (4,), (1,)), loss, CPU, "bf16-true")(batch)
        assert loss.weight is not None and loss.weight.dtype == torch.float32

    @pytest.mark.parametrize(
        ("precision", "dtype"),
        [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16), ("bf16-true", torch.bfloat16)],
    )
    def test_computes_in_the_precision(self, precision: str, dtype: torch.dtype) -> None:
        net = SmallResNet(2, 4, (4,), (1,))
        seen = []
        net.head.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
        batch = {
            "image": torch.ones(2, 32, 32, 3, dtype=torch.uint8),
            "target": torch.tensor([0, 1]),
        }
        assert make_step(net, nn.CrossEntropyLoss(), CPU, precision)(batch).dtype == torch.float32
        assert seen == [dtype]

    def test_the_step_is_timed_on_a_whole_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The last batch of an epoch may hold a single picture."""
        monkeypatch.setattr(pace, "SECONDS", 0.0)
        whole, sizes = next(batches()), []
        rest = {name: tensor[:1] for name, tensor in whole.items()}
        net = Mean()
        net.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
        measure(net, nn.CrossEntropyLoss(), iter([whole, rest, rest]), CPU, "32-true")
        assert sizes == [2, 2]

    def test_a_longer_look_at_the_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A step takes a second by this clock, which a look takes no time to read."""
        now = [0.0]
        monkeypatch.setattr(pace, "SECONDS", 0.0)
        monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
        net = Mean()

        def a_second(*_: object) -> None:
            now[0] += 1

        net.register_forward_pre_hook(a_second)
        steps = []
        net.register_forward_hook(lambda *_: steps.append(1))
        measure(net, nn.CrossEntropyLoss(), batches(), CPU, "32-true", seconds=5)
        assert len(steps) == 5

    def test_both_ways_to_make_a_batch_are_timed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = iter(range(100))
        monkeypatch.setattr(pace, "SECONDS", 0.0)
        monkeypatch.setattr(pace.time, "perf_counter", lambda: next(clock))

        def slow() -> Iterator[dict[str, Tensor]]:
            for batch in batches():
                next(clock)
                yield batch

        found = measure(Mean(), nn.CrossEntropyLoss(), batches(), CPU, "32-true", slow())
        assert (found.data, found.worker, found.step) == (1, 2, 1)


class TestProbe:
    def test_compares_with_the_first_way(self) -> None:
        net = SmallResNet(2, 4, (4, 8), (1, 1))
        batch = {
            "image": torch.randint(256, (4, 32, 32, 3), dtype=torch.uint8),
            "target": torch.tensor([0, 1, 0, 1]),
        }
        before = {name: value.clone() for name, value in net.state_dict().items()}
        plain, half = probe(net, batch, CPU, 2, compiled=False)
        assert (plain.name, half.name) == ("32-true", "bf16-mixed")
        assert len(plain.seconds) == len(half.seconds) == 2
        assert plain.difference == 0.0 < half.difference < 0.1
        assert half.options == "--trainer.precision bf16-mixed"
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())

    def test_a_way_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def none(*_: object, **__: object) -> None:
            raise RuntimeError("no compiler here\nand more")

        monkeypatch.setattr(nn.Module, "compile", none)
        batch = next(batches())
        ways = probe(Mean(), batch, CPU, 1)
        assert [way.reason for way in ways] == ["", "", "no compiler here", "no compiler here"]
        lines = probe_table(Case("Mean", 4, 2, lambda _: Mean()), ways)
        assert "  32-true, compiled      not here: no compiler here" in lines

    def test_no_way_at_all(self) -> None:
        ways = [Way("32-true", "", [], reason="no memory"), Way("bf16-mixed", "", [], reason="x")]
        with pytest.raises(RunFailureError, match="Mean can't be trained here: no memory"):
            probe_table(Case("Mean", 4, 2, lambda _: Mean()), ways)

    def test_the_fastest_is_named_with_its_options(self) -> None:
        slow, fast = Way("32-true", "", [0.4, 0.6]), Way("bf16-mixed", "--x y", [0.2, 0.3], 0.25)
        lines = probe_table(Case("Mean", 4, 2, lambda _: Mean()), [slow, fast])
        assert "2.00 times as fast, a probability differs by at most 0.2" in lines[2]
        assert lines[-1] == "  fastest: bf16-mixed (--x y)"

    def test_the_command_on_a_config(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setattr("src.bench.probe", lambda net, batch, *_: [Way("32-true", "", [0.1])])
        words = ["--config", "configs/demo.yaml", "--repeats", "1", "--json", str(tmp_path / "a")]
        assert main(["--probe", *words]) == 0
        assert "SmallResNet, 64 pixels, batches of 32: milliseconds" in capsys.readouterr().out


class TestCaseOfAConfig:
    def test_takes_the_size_after_the_crop(self) -> None:
        case = case_of(Path("configs/bee_wasp.yaml"))
        assert (case.name, case.image_size, case.batch_size) == ("SmallResNet", 128, 64)
        assert case_of(Path("configs/seed.yaml")).make_net(2).single_logit is True

    def test_a_network_by_its_name_or_by_its_options(self, tmp_path: Path) -> None:
        for text, name in (
            ("model: {net: src.models.SmallResNet}", "SmallResNet"),
            ("model: {net: {init_args: {single_logit: true}}}", "SeedCNN"),
            ("", "SeedCNN"),
        ):
            (tmp_path / "a.yaml").write_text(text)
            assert case_of(tmp_path / "a.yaml").name == name

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("model: {net: {class_path: src.models.SmalResNet}}", "SmallResNet"),
            ("model: {net: {class_path: SmallResNet}}", "write it whole"),
            ("- 1", "holds a list"),
            ("model: {net: 3}", "model.net is 3; give a class path"),
            ("model: {net: {init_args: 3}}", "model.net.init_args is 3; give name: value"),
            ("model: {net: {class_path: 3}}", "write it whole"),
            ("data: {image_size: big}", "can't be built: "),
            ("data: {image_size: 64}", "can't be built: SeedCNN"),
            ("model: {net: {class_path: src.models.SmallResNet, init_args: {widths: 3}}}", "built"),
            (
                "data: {image_size: 150, augment: [{class_path: albumentations.RandomCrop, "
                "init_args: {height: 64, width: 96}}]}\nmodel: {net: src.models.SmallResNet}",
                "96 x 64 pixels",
            ),
        ],
    )
    def test_mistakes(
        self, text: str, match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "a.yaml").write_text(text)
        assert main(["--probe", "--config", str(tmp_path / "a.yaml")]) == 2
        assert match in capsys.readouterr().err
