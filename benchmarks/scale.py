"""How many machines: a thousand million texts a day, a busy service, a grid of a thousand cells.

A simulation of events over figures that were measured (``MEASURED``, each with the command it
came from); nothing here is measured by running it. Prints the tables of docs/scale.md, or
writes them into it.

    python benchmarks/scale.py [--write]
"""

from __future__ import annotations

import heapq
import re
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SECONDS_A_DAY = 86_400
CORES = 16  # of a machine
MEMORY_GIB = 64
BUSY = 0.7  # share of the time that cores are planned to work
SEED = 0
ROUNDS = 20  # over which what killed workers cost is averaged


@dataclass(frozen=True)
class Measured:
    """What was seen on two cores of an AMD EPYC at 2.6 GHz.

    Attributes:
        per_core: Tweets of 26 tokens scored a second by one core, by format;
            ``python benchmarks/prediction.py --rows 1500``, half of what two did.
        tokens: Of these tweets.
        start_seconds, worker_mib: Of a process of the 8-bit model; the same command.
        bytes_in, bytes_out: Of a row of the TweetEval test, in Parquet: id and text; with label
            and three probabilities too.
        cells: Seconds on one core and MiB of finished cells by method, median over the run
            folders of TREC (ratio 20), 6 epochs: ``configs/trec-cpu.yaml``.
        cell_bytes: Of a run folder without its model.
    """

    per_core: dict[str, float]
    tokens: int
    start_seconds: float
    worker_mib: float
    bytes_in: float
    bytes_out: float
    cells: dict[str, tuple[float, float]]
    cell_bytes: float


MEASURED = Measured(
    per_core={"PyTorch": 140, "ONNX": 161, "ONNX 8-bit": 379, "OpenVINO 8-bit": 425},
    tokens=26,
    start_seconds=0.5,
    worker_mib=130,
    bytes_in=76,
    bytes_out=106,
    cells={
        "tfidf-lr": (3, 600), "linear-probe": (9, 766), "focal": (113, 1762),
        "cross-entropy": (134, 1724), "ldam": (135, 1782), "logit-adjust": (167, 1793),
        "sharprecl-no-simple": (339, 2923), "supcon": (356, 2878),
        "sharprecl-no-mixup": (378, 2927), "sharprecl": (474, 2940),
    },
    cell_bytes=2.9e6,
)  # fmt: skip


def cores_for(texts_a_day: float, tokens: int, per_core: float) -> int:
    """Cores that score so many texts of so many tokens in a day, busy for ``BUSY`` of it.

    The time of a text grows with its tokens; that of attention, which grows with their square,
    is a twentieth at 26 tokens and a third at 256, and is left out.
    """
    rate = per_core * MEASURED.tokens / tokens * BUSY
    return int(np.ceil(texts_a_day / SECONDS_A_DAY / rate))


def answer_times(arrivals: np.ndarray, cores: int, per_text: float, most: int) -> np.ndarray:
    """(N,) seconds from question to answer of ``cores`` servers that score what has gathered.

    Args:
        arrivals: (N,) rising times of questions of one text; each goes to the first free core.
        cores: Servers, each with a model.
        per_text: Seconds of a text.
        most: Texts of a batch.
    """
    free = [0.0] * cores
    waits = np.zeros(len(arrivals))
    at = 0
    while at < len(arrivals):
        start = max(heapq.heappop(free), arrivals[at])
        end = min(at + most, int(np.searchsorted(arrivals, start, side="right")))
        done = start + per_text * (end - at)
        waits[at:end] = done - arrivals[at:end]
        heapq.heappush(free, done)
        at = end
    return waits


def cores_for_p99(rate: float, per_core: float, seconds: float) -> tuple[int, float]:
    """Fewest cores that answer 99 of 100 in ``seconds`` at a steady rate, and their p99."""
    draw = np.random.default_rng(SEED)
    arrivals = np.cumsum(draw.exponential(1 / rate, size=60_000))
    cores = int(np.ceil(rate / per_core))
    while True:
        p99 = float(np.quantile(answer_times(arrivals, cores, 1 / per_core, 64), 0.99))
        if p99 <= seconds:
            return cores, p99
        cores += 1


@dataclass(frozen=True)
class Grid:
    """What became of a simulated grid.

    Attributes:
        hours: Until the last cell was done.
        repeated: Cells that were begun again since their worker was killed.
        busy: Share of the slots' time that work took.
    """

    hours: float
    repeated: int
    busy: float


def grid_cells(count: int) -> list[tuple[float, float]]:
    """Seconds and MiB of so many cells: the measured methods in turn, data of unlike size.

    Sizes are drawn around the measured one (a log-normal with a factor of 2 as deviation).
    """
    draw = np.random.default_rng(SEED)
    kinds = list(MEASURED.cells.values())
    scale = np.exp(draw.normal(0.0, np.log(2.0), size=count))
    return [(kinds[i % len(kinds)][0] * scale[i], kinds[i % len(kinds)][1]) for i in range(count)]


def run_grid(
    cells: Sequence[tuple[float, float]], machines: int, losses_a_day: float, seed: int = SEED
) -> Grid:
    """Cells on machines with a slot per core, as far as memory goes; lost machines come back.

    Args:
        cells: Seconds and MiB of each.
        machines: Of ``CORES`` cores and ``MEMORY_GIB``.
        losses_a_day: How often a worker is killed, and its cell begun again.
        seed: Of the times of these.
    """
    draw = np.random.default_rng(seed)
    slots = machines * min(CORES, int(MEMORY_GIB * 1024 / max(mib for _, mib in cells)))
    free = [0.0] * slots
    waiting = deque(seconds for seconds, _ in cells)
    repeated, worked = 0, 0.0
    while waiting:
        seconds = waiting.popleft()
        start = heapq.heappop(free)
        lost = draw.exponential(SECONDS_A_DAY / losses_a_day) if losses_a_day else np.inf
        if lost < seconds:
            waiting.append(seconds)
            repeated += 1
        taken = min(seconds, lost)
        worked += taken
        heapq.heappush(free, start + taken)
    end = max(free)
    return Grid(end / 3600, repeated, worked / (end * slots))


def prediction_table() -> list[str]:
    """Cores and machines for 10⁹ texts a day, by format and length."""
    lines = ["| format | texts/s a core | tweets (26 tokens) | reviews (128 tokens) |",
             "|---|---|---|---|"]  # fmt: skip
    for name, rate in MEASURED.per_core.items():
        cells = []
        for tokens in (MEASURED.tokens, 128):
            cores = cores_for(1e9, tokens, rate)
            cells.append(f"{cores} cores, {-(-cores // CORES)} machines")
        lines.append(f"| {name} | {rate:.0f} | {cells[0]} | {cells[1]} |")
    return lines


def service_table() -> list[str]:
    """Cores that keep an answer quick at a rate."""
    rate_of = MEASURED.per_core["ONNX 8-bit"]
    lines = ["| requests/s | cores at p99 ≤ 100 ms | cores at p99 ≤ 30 ms |", "|---|---|---|"]
    for rate in (100, 1_000, 11_574, 34_722):
        slow, quick = (cores_for_p99(rate, rate_of, limit) for limit in (0.1, 0.03))
        lines.append(
            f"| {rate:,} | {slow[0]} (p99 {1000 * slow[1]:.0f} ms) "
            f"| {quick[0]} (p99 {1000 * quick[1]:.0f} ms) |"
        )
    return lines


def grid_table() -> list[str]:
    """Hours of a grid of a thousand cells."""
    cells = grid_cells(1000)
    hours = sum(seconds for seconds, _ in cells) / 3600
    longest = max(seconds for seconds, _ in cells) / 60
    lines = [f"{hours:.0f} core hours in all; the longest cell takes {longest:.0f} minutes.", "",
             "| machines | hours | every worker killed 4 times a day | busy |",
             "|---|---|---|---|"]  # fmt: skip
    for machines in (1, 2, 4, 16, 64):
        calm = run_grid(cells, machines, 0)
        rough = [run_grid(cells, machines, 4, seed) for seed in range(ROUNDS)]
        hours = np.mean([one.hours for one in rough])
        twice = np.mean([one.repeated for one in rough])
        lines.append(f"| {machines} | {calm.hours:.2f} | {hours:.2f}, {twice:.0f} cells twice "
                     f"| {calm.busy:.0%} |")  # fmt: skip
    return lines


def storage_lines() -> list[str]:
    """Bytes of both."""
    day_in, day_out = 1e9 * MEASURED.bytes_in / 1e9, 1e9 * MEASURED.bytes_out / 1e9
    network = 1e9 * (MEASURED.bytes_in + MEASURED.bytes_out) / SECONDS_A_DAY / 1e6
    return [
        f"- A day of texts: {day_in:.0f} GB in, {day_out:.0f} GB out, {network:.1f} MB/s.",
        f"- A thousand cells: {1000 * MEASURED.cell_bytes / 1e9:.1f} GB of run folders.",
        f"- {CORES} prediction workers of the 8-bit model: "
        f"{CORES * MEASURED.worker_mib / 1024:.1f} GiB of memory.",
    ]


TABLES: dict[str, Callable[[], list[str]]] = {
    "prediction": prediction_table, "service": service_table, "grid": grid_table,
    "storage": storage_lines,
}  # fmt: skip
PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
PLACE = re.compile(r"(<!-- (\w+) -->\n\n)(.*?)(\n\n<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with every table as it is computed now."""
    return PLACE.sub(lambda m: m[1] + "\n".join(TABLES[m[2]]()) + m[4], page)


def main() -> None:
    if "--write" in sys.argv[1:]:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name, table in TABLES.items():
        print(f"{name}\n")
        print("\n".join(table()), end="\n\n")


if __name__ == "__main__":
    main()
