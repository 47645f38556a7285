from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from prepared_python import PREPARED

from benchmarks.speed import measure
from benchmarks.speed.measure import Result
from ldseg_monai.networks.segmenter import DiffusionSegmenter, State

MEGABYTE = 10**6


def allocating(while_building: int, in_call: int) -> Callable[[], object]:
    """A build whose call takes so many bytes, after having taken others for a while."""
    torch.ones(while_building, dtype=torch.uint8)
    return lambda: torch.ones(in_call, dtype=torch.uint8)


def beyond_the_machine() -> Callable[[], object]:
    """A build whose call asks for more memory than there is, but would never touch it."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return lambda: torch.empty(1024 * available + 10**9, dtype=torch.uint8)


class Clock:
    """A clock that only the calls of its builds put forward, and a log of them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def taking(self, seconds: float, name: str = "") -> Callable[[], Callable[[], None]]:
        """A build whose call takes so long."""

        def call() -> None:
            self.now += seconds
            self.log.append(name)

        return lambda: call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    return clock


def compare(
    builds: dict[str, Callable], rounds: int = 4, budget: float = 60.0
) -> dict[str, Result]:
    return measure.compare({name: {"": build} for name, build in builds.items()}, rounds, budget)


def test_memory_of_the_call_is_seen_and_that_of_building_is_not() -> None:
    memory = measure.peak_memory(partial(allocating, 200 * MEGABYTE, 300 * MEGABYTE))
    assert memory.increase == pytest.approx(300 * MEGABYTE, rel=0.1)
    assert memory.peak > memory.increase + 50 * MEGABYTE  # Python and PyTorch themselves


def test_what_needs_more_memory_than_the_machine_has_is_a_reason_and_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "get_context", lambda method: PREPARED)
    results = measure.compare(
        {"huge": {"": beyond_the_machine}}, rounds=2, budget=60, memory=["huge"]
    )
    assert "allocate" in results["huge"].failure
    assert not results["huge"].seconds


def test_candidates_take_turns_after_a_warm_up(clock: Clock) -> None:
    results = compare({"a": clock.taking(1, "a"), "b": clock.taking(1, "b")}, rounds=3)
    assert clock.log == ["a", "b"] * 4
    assert list(results["a"].seconds) == [0, 1, 2]


def test_times_and_their_ratios_are_those_of_the_calls(clock: Clock) -> None:
    results = compare({"slow": clock.taking(6), "fast": clock.taking(2)})
    assert results["slow"].median == 6
    assert results["slow"].ratios(results["fast"]) == [3, 3, 3, 3]


def test_a_call_is_timed_by_the_real_clock() -> None:
    seconds, _ = measure.timed(lambda: time.sleep(0.05))
    assert 0.05 <= seconds < 1


def test_ratio_is_taken_within_a_round() -> None:
    result, reference = Result({0: 2.0, 1: 12.0}), Result({0: 1.0, 1: 4.0, 2: 100.0})
    assert result.ratios(reference) == [2, 3]


def test_budget_leaves_two_runs_to_what_is_slow_and_one_to_what_is_slower(clock: Clock) -> None:
    builds = {"fast": clock.taking(1), "slow": clock.taking(6), "slower": clock.taking(20)}
    results = compare(builds, rounds=4, budget=10)
    assert [len(result.seconds) for result in results.values()] == [4, 2, 1]
    assert [result.cold for result in results.values()] == [False, False, True]
    assert results["slower"].ratios(results["fast"]) == [20]


def test_fastest_variant_alone_is_timed(clock: Clock) -> None:
    variants = {"bad": clock.taking(3, "bad"), "good": clock.taking(1, "good")}
    results = measure.compare({"network": variants}, rounds=3, budget=60)
    assert results["network"].variant == "good"
    assert clock.log == ["bad"] + ["good"] * 4


def test_failure_is_noted_and_the_others_go_on(clock: Clock) -> None:
    def failing() -> Callable[[], object]:
        raise ValueError("16 should be divisible by 3\nand more")

    results = compare({"bad": failing, "good": clock.taking(1)})
    assert results["bad"].failure == "ValueError: 16 should be divisible by 3"
    assert len(results["good"].seconds) == 4


def test_failure_in_a_later_round_is_noted_too(clock: Clock) -> None:
    runs = iter([None, None])
    results = compare({"tired": lambda: lambda: next(runs), "good": clock.taking(1)})
    assert "StopIteration" in results["tired"].failure
    assert len(results["good"].seconds) == 4


def test_parts_that_a_call_returns_are_kept_by_round() -> None:
    values = iter([9.0, 1.0, 2.0, 4.0])
    result = compare({"": lambda: lambda: {"part": next(values)}}, rounds=3)[""]
    assert result.median_parts() == {"part": 2.0}


def test_stopwatch_adds_up_what_it_watches(clock: Clock) -> None:
    class Network(DiffusionSegmenter):
        """Encodes in 1 s, denoises two samples one by one in 2 steps of 10 s, decodes in 100 s."""

        def draw(self, image, noise, num_inference_steps=None, callback=None):
            clock.now += 1
            for _ in range(2):
                for timestep in (2, 1):
                    callback(State(timestep, image, torch.argmax))
                    clock.now += 10
                callback(State(0, image, torch.argmax))
                clock.now += 100
                yield image

    network, stopwatch, told = Network(), measure.Stopwatch(), []
    stopwatch.watch(network)

    def callback(state: State) -> None:
        told.append(state.timestep)
        clock.now += 10_000  # what is done with a state is no part of the process

    with stopwatch.part("all"):
        for _ in network.draw(torch.zeros(1), None, callback=callback):
            clock.now += 1000  # what is done with a sample is none either
    assert told == [2, 1, 0, 2, 1, 0]
    assert stopwatch.lap() == {
        measure.ENCODING: 1,
        measure.DENOISING: 40,
        measure.DECODING: 200,
        "all": 62_241,
    }
    assert stopwatch.lap() == {}
