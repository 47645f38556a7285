"""How the speed benchmarks measure: rounds in turns, and the peak memory of a fresh process.

A candidate is what is compared: a mapping of variants (such as memory layouts) to functions that
build it. What a build returns is the call to be measured; it may return the seconds of its own
parts.
"""

from __future__ import annotations

import logging
import resource
import statistics
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import torch

from ldseg_monai.diffusion.noise import Noise
from ldseg_monai.networks.segmenter import Callback, DiffusionSegmenter, State

Call = Callable[[], object]
Build = Callable[[], Call]
Key = TypeVar("Key", bound=Hashable)

ENCODING, DENOISING, DECODING = "image encoding", "denoising", "decoding"  # of a segmentation
MIN_RUNS = 2
REASON_LENGTH = 200

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Memory:
    """Peak memory of one call in a process of its own, in bytes.

    Attributes:
        peak: of the whole process, Python and its imports included; on a GPU, of PyTorch's
            allocations there.
        increase: how far the call went beyond what was in use before it, network and image
            included.
    """

    peak: int
    increase: int

    def __str__(self) -> str:
        return f"peak {self.peak / 1e6:.0f} MB, {self.increase / 1e6:.0f} MB of it by the call"


@dataclass
class Result:
    """What was measured of one candidate.

    Attributes:
        seconds: of each timed run, by round.
        parts: what the call returned of its own parts in each round.
        variant: the fastest one in the warm-up, which alone was timed.
        cold: whether the one run is the warm-up, since that took longer than the budget.
        memory: peak memory, if it was measured.
        failure: why there is nothing, if so.
    """

    seconds: dict[int, float] = field(default_factory=dict)
    parts: dict[int, Mapping[str, float]] = field(default_factory=dict)
    variant: str = ""
    cold: bool = False
    memory: Memory | None = None
    failure: str = ""

    @property
    def median(self) -> float:
        """Median seconds of the runs."""
        return statistics.median(self.seconds.values())

    def ratios(self, reference: Result) -> list[float]:
        """Time over the reference's, in each round in which both ran."""
        return [
            self.seconds[i] / reference.seconds[i] for i in self.seconds if i in reference.seconds
        ]

    def median_parts(self) -> dict[str, float]:
        """Median seconds of each part over the rounds."""
        rounds = list(self.parts.values())
        if not rounds:
            return {}
        medians = {}
        for name in rounds[0]:
            medians[name] = statistics.median(parts[name] for parts in rounds)
        return medians


def compare(
    candidates: Mapping[Key, Mapping[str, Build]],
    rounds: int,
    budget: float,
    device: str = "cpu",
    memory: Collection[Key] = (),
) -> dict[Key, Result]:
    """Measure the memory of all candidates, then the time of those that did not fail.

    Args:
        candidates: variants of each.
        rounds: timed runs of each candidate, at most.
        budget: seconds of timed runs for each, beyond which it gets no more than `MIN_RUNS`, or
            none but its warm-up if that alone took longer.
        device: ``cpu`` or ``cuda``.
        memory: candidates whose memory is measured, in their first variant, whose build must be
            picklable. It comes first: a candidate that needs more than the machine has fails in a
            process of its own.

    Returns:
        A result for each, with the reason where one failed.
    """
    results = {key: Result() for key in candidates}
    for key in memory:
        with _noting_failure(results[key]):
            results[key].memory = peak_memory(next(iter(candidates[key].values())), device)
        logger.info("%s: %s", key, results[key].memory or results[key].failure)
    interleave(candidates, results, rounds, budget, device)
    return results


def interleave(
    candidates: Mapping[Key, Mapping[str, Build]],
    results: dict[Key, Result],
    rounds: int,
    budget: float,
    device: str = "cpu",
) -> None:
    """Time the candidates in turns, once a round: what slows the machine for a while slows all.

    Args:
        candidates: as of `compare`.
        results: of each candidate, which this fills; those with a failure are passed over.
        rounds: as of `compare`.
        budget: as of `compare`.
        device: as of `compare`.
    """
    calls: dict[Key, Call] = {}
    for key, builds in candidates.items():
        if not results[key].failure:
            with _noting_failure(results[key]):
                call = _warm_up(builds, results[key], budget, device)
                if not results[key].cold:
                    calls[key] = call
            logger.info("%s: warm", key)
    for index in range(rounds):
        for key, call in calls.items():
            result = results[key]
            if result.failure:
                continue
            if index >= MIN_RUNS and sum(result.seconds.values()) + result.median > budget:
                continue
            with _noting_failure(result):
                result.seconds[index], result.parts[index] = timed(call, device)
                logger.info("%s: %.4g s", key, result.seconds[index])


def timed(call: Call, device: str = "cpu") -> tuple[float, Mapping[str, float]]:
    """Seconds of one call, by CUDA events on a GPU, and of its parts, if it returns them."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        output = call()
        end.record()
        torch.cuda.synchronize()
        seconds = start.elapsed_time(end) / 1000
    else:
        began = time.perf_counter()
        output = call()
        seconds = time.perf_counter() - began
    return seconds, output if isinstance(output, Mapping) else {}


def peak_memory(build: Build, device: str = "cpu") -> Memory:
    """Peak memory of one call in a fresh process.

    Args:
        build: picklable.
        device: ``cpu`` for the resident memory of the process, ``cuda`` for PyTorch's allocations
            on the GPU.

    Raises:
        Exception: what the build or its call raised there, such as for want of memory.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_probe, build, device).result()
    except BrokenProcessPool as error:
        raise MemoryError("its process was killed, most likely for want of memory") from error


class Stopwatch:
    """Seconds of named parts of a call, also of those in code that is not the benchmark's.

    Args:
        device: ``cpu`` or ``cuda``, which is waited for around each part.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the seconds of a with block to a part."""
        began = self._clock()
        yield
        self._add(name, self._clock() - began)

    def watch(self, network: DiffusionSegmenter) -> None:
        """Add every reverse process of a network to the parts `ENCODING`, `DENOISING`, `DECODING`.

        What is before the first step is the encoding, what is after the last one the decoding,
        without an interpolation at its end.
        """
        draw = network.draw

        @wraps(draw)
        def watched(
            image: torch.Tensor,
            noise: Noise,
            num_inference_steps: int | None = None,
            callback: Callback | None = None,
        ) -> Iterator[torch.Tensor]:
            before = None  # timestep of the state before
            lap = self._clock()

            def told(state: State) -> None:
                nonlocal before, lap
                part = ENCODING
                if before is not None:
                    part = DENOISING if state.timestep < before else DECODING
                self._add(part, self._clock() - lap)
                before = state.timestep
                if callback is not None:
                    callback(state)
                lap = self._clock()

            for logits in draw(image, noise, num_inference_steps, told):
                self._add(DECODING, self._clock() - lap)
                yield logits
                lap = self._clock()

        setattr(network, "draw", watched)  # noqa: B010, mypy lets no method be assigned

    def lap(self) -> dict[str, float]:
        """Return the seconds since the last lap, and begin anew."""
        seconds, self.seconds = self.seconds, {}
        return seconds

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def _clock(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def _warm_up(builds: Mapping[str, Build], result: Result, budget: float, device: str) -> Call:
    """Run each variant once and return the fastest, noted in the result.

    Its run counts if it outlasted the budget.
    """
    fastest, best = None, float("inf")
    for variant, build in builds.items():
        call = build()
        seconds, parts = timed(call, device)
        if fastest is None or seconds < best:
            fastest, best, result.variant = call, seconds, variant
        if seconds > budget:
            break
    if fastest is None:
        raise ValueError("no variant to build: expected one at least")
    if best > budget:
        result.cold, result.seconds[0], result.parts[0] = True, best, parts
    return fastest


@contextmanager
def _noting_failure(result: Result) -> Iterator[None]:
    """Write what goes wrong into the result, instead of ending the comparison of all others."""
    try:
        yield
    except Exception as error:
        result.failure = _reason(error)


def _reason(error: Exception) -> str:
    """First line of an error."""
    return f"{type(error).__name__}: {str(error).strip()}".split("\n")[0][:REASON_LENGTH]


def _probe(build: Build, device: str) -> Memory:
    """Measure the memory of a call in this process."""
    if device == "cuda":
        call = build()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        peak = torch.cuda.max_memory_allocated()
        return Memory(peak, peak - before)
    available = kilobytes("/proc/meminfo", "MemAvailable")
    limit = 1024 * (kilobytes("/proc/self/status", "VmSize") + available)
    resource.setrlimit(
        resource.RLIMIT_AS, (limit, limit)
    )  # so that an allocation fails before the machine does
    call = build()
    built = kilobytes("/proc/self/status", "VmHWM")
    with suppress(
        OSError
    ):  # where the kernel has no reset, a peak of building counts as the call's
        Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("/proc/self/status", "VmRSS")
    call()
    peak = kilobytes("/proc/self/status", "VmHWM")
    return Memory(1024 * max(built, peak), 1024 * (peak - before))


def kilobytes(path: str, name: str) -> int:
    """An entry of a file such as ``/proc/self/status``."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ValueError(f"{path} has no {name}: expected a Linux kernel")
