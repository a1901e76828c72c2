"""The learning rates, against values worked out by hand."""

import io
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.errors import UserError
from src.schedules import OneCycle, StepSchedule, WarmupCosine, one_cycle, warmup_cosine

SCHEDULES = (OneCycle, WarmupCosine)


def make_optimizer(*rates: float) -> torch.optim.SGD:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


def rates_of(schedule: StepSchedule, num_steps: int) -> list[list[float]]:
    """Train for some steps; return the rates that each step used."""
    used = []
    for _ in range(num_steps):
        used.append([group["lr"] for group in schedule.optimizer.param_groups])
        schedule.optimizer.step()
        schedule.step()
    return used


# Ten steps have their middles at 0.05, 0.15, ... 0.95.


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.04 + 0.96 * (1 - math.cos(math.pi / 6)) / 2),  # 0.05 is a sixth of the rise
        (1, (0.04 + 1) / 2),  # 0.15 is half of the rise to 0.3
        (6, (1 + 1e-4) / 2),  # 0.65 is half of the fall from 0.3 to 1
        (10, 1e-4),
        (1000, 1e-4),
    ],
)
def test_one_cycle_by_hand(step: int, expected: float) -> None:
    assert one_cycle(step, 10) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.25),  # 0.05 is a quarter of the rise to 0.2
        (1, 0.75),
        (2, 0.6 + 0.4 * math.cos(math.pi / 16)),  # 0.25 is a sixteenth of the fall
        (9, 0.6 - 0.4 * math.cos(math.pi / 16)),  # and 0.95 as far from its end
        (10, 0.2),
        (1000, 0.2),
    ],
)
def test_warmup_cosine_by_hand(step: int, expected: float) -> None:
    factor = warmup_cosine(step, 10, warmup_fraction=0.2, final_fraction=0.2)
    assert factor == pytest.approx(expected, rel=1e-12)


def test_the_peak_is_reached_exactly() -> None:
    assert one_cycle(2, 5, peak_fraction=0.5) == 1.0  # the middle of five steps is 0.5
    assert warmup_cosine(2, 5, warmup_fraction=0.5) == 1.0


def test_no_rise_starts_at_the_peak() -> None:
    assert warmup_cosine(0, 10**9, warmup_fraction=0.0) == pytest.approx(1.0)
    assert one_cycle(0, 10**9, peak_fraction=0.0) == pytest.approx(1.0)


def test_a_run_of_one_step_trains() -> None:
    # Its middle is 0.5: 2/7 of the fall of the one, 4/9 of that of the other.
    seen = rates_of(OneCycle(make_optimizer(2.0), total_steps=1), 1)
    low = 1e-4
    assert seen == [[pytest.approx(2 * (low + (1 - low) * (1 + math.cos(math.pi * 2 / 7)) / 2))]]
    seen = rates_of(WarmupCosine(make_optimizer(2.0), total_steps=1), 1)
    assert seen == [[pytest.approx(1 + math.cos(math.pi * 4 / 9))]]


@given(total=st.integers(1, 500), data=st.data())
def test_every_step_of_a_run_has_a_rate_above_zero_and_at_most_the_peak(
    total: int, data: st.DataObject
) -> None:
    step = data.draw(st.integers(0, total - 1))
    below_one = st.floats(0, 1, exclude_max=True)
    place, start, final = data.draw(below_one), data.draw(st.floats(0, 1)), data.draw(below_one)
    for factor in (one_cycle(step, total, place, start, final), warmup_cosine(step, total, place)):
        assert 0 < factor <= 1 + 1e-12


@pytest.mark.parametrize("schedule_class", SCHEDULES)
def test_each_group_keeps_its_own_peak(schedule_class: type[StepSchedule]) -> None:
    seen = rates_of(schedule_class(make_optimizer(1.0, 0.1), total_steps=8), 8)
    assert [one / ten for one, ten in seen] == pytest.approx([10.0] * 8)
    assert max(one for one, _ in seen) > 0.9


def test_the_schedules_use_their_curves() -> None:
    seen = rates_of(OneCycle(make_optimizer(0.5), 6, peak_fraction=0.4, start_fraction=0.2), 8)
    assert [rate for (rate,) in seen] == [0.5 * one_cycle(s, 6, 0.4, 0.2) for s in range(8)]
    seen = rates_of(WarmupCosine(make_optimizer(0.5), 6, 0.3, 0.1), 8)
    assert [rate for (rate,) in seen] == [0.5 * warmup_cosine(s, 6, 0.3, 0.1) for s in range(8)]


@pytest.mark.parametrize("schedule_class", SCHEDULES)
@pytest.mark.parametrize("stop", [0, 1, 4, 9, 10])
def test_a_resumed_run_equals_the_whole_one(schedule_class: type[StepSchedule], stop: int) -> None:
    whole = rates_of(schedule_class(make_optimizer(0.3), total_steps=10), 12)

    first = schedule_class(make_optimizer(0.3), total_steps=10)
    before = rates_of(first, stop)
    saved = io.BytesIO()
    torch.save([first.state_dict(), first.optimizer.state_dict()], saved)
    saved.seek(0)
    position, optimizer_state = torch.load(saved, weights_only=True)

    second = schedule_class(make_optimizer(0.3), total_steps=10)
    second.optimizer.load_state_dict(optimizer_state)
    second.load_state_dict(position)
    assert before + rates_of(second, 12 - stop) == whole
    assert second.state_dict()["last_epoch"] == 12


@pytest.mark.parametrize("schedule_class", SCHEDULES)
def test_the_state_is_plain_and_does_not_hold_the_curve(schedule_class: type[StepSchedule]) -> None:
    short = schedule_class(make_optimizer(1.0), total_steps=4)
    rates_of(short, 3)
    state = json.loads(json.dumps(short.state_dict()))
    assert state == {
        "last_epoch": 3,
        "step_count": 4,
        "base_lrs": [1.0],
        "last_lr": short.get_last_lr(),
    }
    longer = schedule_class(make_optimizer(2.0), total_steps=40)
    longer.load_state_dict(state)
    assert longer.total_steps == 40
    assert longer.state_dict() == state


def test_a_loaded_state_shares_nothing_with_the_schedule() -> None:
    schedule = OneCycle(make_optimizer(1.0), total_steps=4)
    state = schedule.state_dict()
    state["base_lrs"][0] = 7.0
    assert schedule.base_lrs == [1.0]


@pytest.mark.parametrize("schedule_class", SCHEDULES)
def test_steps_are_needed(schedule_class: type[StepSchedule]) -> None:
    optimizer = make_optimizer(1.0)
    with pytest.raises(ValueError, match=r"total_steps=0; a schedule needs 1 or more"):
        schedule_class(optimizer, total_steps=0)
    with pytest.raises(TypeError, match=r"missing its argument total_steps"):
        schedule_class(optimizer)  # type: ignore[call-arg]
    assert optimizer.param_groups[0]["lr"] == 1.0


@pytest.mark.parametrize(
    ("schedule_class", "name", "value"),
    [
        (WarmupCosine, "warmup_fraction", 1.0),
        (WarmupCosine, "final_fraction", 1.5),
        (OneCycle, "peak_fraction", -0.1),
        (OneCycle, "start_fraction", math.nan),
        (OneCycle, "final_fraction", -1e-9),
    ],
)
def test_a_fraction_out_of_range_is_refused(
    schedule_class: type[StepSchedule], name: str, value: float
) -> None:
    with pytest.raises(UserError, match=rf"^{name} is {value}; it is a share of the"):
        schedule_class(make_optimizer(1.0), total_steps=5, **{name: value})
