"""A server over a long time: requests of random sizes, hang-ups, models that change and break.

``valence serve`` runs in a process of its own. Some clients send requests of one to fifty texts
of random lengths; every tenth hangs up in the middle of its request or before its answer.
Meanwhile the model's folder is replaced, by turns by another good model and by broken ones (a
config that is cut off, weights that are, a file that is missing). Every answer is checked: label
and probability of every text of a request must be those of one of the two models, and of the same
for all texts.

The memory that the server has to itself is read every 250 requests; after the first tenth it must
stay within 5 %.

Run it with ``python benchmarks/soak.py [--requests 20000] [--clients 16]``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import valence

TOLERANCE = 1e-5
MOST_TEXTS = 50
POOL = 3000
HANG_UPS = 0.1
RELOAD_SECONDS = 5.0  # between changes: the server looks every 2 s, and twice
MEMORY_EVERY = 250
FLAT = 0.05
SECONDS = 30


@dataclass
class Tally:
    """What came of the requests."""

    answered: int = 0
    wrong: int = 0
    lost: int = 0
    refused: dict[int, int] = field(default_factory=dict)
    hung_up: int = 0
    by_model: list[int] = field(default_factory=lambda: [0, 0])
    reloads: list[str] = field(default_factory=list)
    memory: list[tuple[int, float]] = field(default_factory=list)
    sent: int = 0


@dataclass(frozen=True)
class Expected:
    """What a model says of the pool: (N,) labels and their probabilities."""

    labels: list[str]
    scores: np.ndarray


class Soak:
    """The clients, the folder they see through the server, and what is counted."""

    def __init__(
        self, port: int, texts: list[str], expected: list[Expected], requests: int, process: int
    ) -> None:
        self.port, self.texts, self.expected = port, texts, expected
        self.requests, self.process = requests, process
        self.tally = Tally()
        self.draw = random.Random(0)

    async def client(self) -> None:
        """Ask until all requests are sent."""
        while self.tally.sent < self.requests:
            self.tally.sent += 1
            if self.tally.sent % MEMORY_EVERY == 0:
                self.tally.memory.append((self.tally.sent, memory_mib(self.process)))
            count = self.draw.choice([1, 1, 1, 2, 5, 20, MOST_TEXTS])
            chosen = [self.draw.randrange(len(self.texts)) for _ in range(count)]
            await self.ask(chosen)

    async def ask(self, chosen: list[int]) -> None:
        """One request, or a part of one."""
        body = json.dumps({"inputs": [self.texts[i] for i in chosen]}).encode()
        head = (
            "POST /predict HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        whole = head.encode() + body
        hangs_up = self.draw.random() < HANG_UPS
        sent = whole[: self.draw.randrange(1, len(whole) + 1)] if hangs_up else whole
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(sent)
            if hangs_up:
                await asyncio.sleep(self.draw.random() * 0.01)
                self.tally.hung_up += 1
                writer.transport.abort()
                return
            answer = await asyncio.wait_for(reader.read(), SECONDS)
            writer.close()
        except (OSError, TimeoutError):
            self.tally.lost += not hangs_up
            return
        self.judge(answer, chosen)

    def judge(self, answer: bytes, chosen: list[int]) -> None:
        """Count an answer; one that is of neither model, or of both, is wrong."""
        head, _, document = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 "):
            self.tally.lost += 1
            return
        status = int(head.split()[1])
        if status != 200:
            self.tally.refused[status] = self.tally.refused.get(status, 0) + 1
            return
        self.tally.answered += 1
        best = [scores[0] for scores in json.loads(document)]
        for model, own in enumerate(self.expected):
            labels = [own.labels[i] for i in chosen]
            scores = own.scores[chosen]
            if [b["label"] for b in best] == labels and np.allclose(
                [b["score"] for b in best], scores, atol=TOLERANCE, rtol=0
            ):
                self.tally.by_model[model] += 1
                return
        self.tally.wrong += 1

    async def change(self, folder: Path, good: list[Path], scratch: Path) -> None:
        """Replace the folder again and again until all requests are sent."""
        turn, at = 0, time.monotonic() + RELOAD_SECONDS
        while self.tally.sent < self.requests:
            await asyncio.sleep(0.05)
            if time.monotonic() < at:
                continue
            at = time.monotonic() + RELOAD_SECONDS
            turn += 1
            kind = ("missing", "good", "config", "good", "weights", "good")[turn % 6]
            await asyncio.to_thread(
                put, folder, good[(turn + 1) // 2 % 2], scratch / f"new{turn}", kind
            )
            self.tally.reloads.append(kind)


def put(folder: Path, model: Path, new: Path, kind: str) -> None:
    """Put a copy of a model, whole or broken, in the place of the folder."""
    shutil.copytree(model, new)
    files = sorted(
        (p for p in new.rglob("*") if p.is_file() and p.suffix != ".md"),
        key=lambda path: path.stat().st_size,
    )
    if kind == "config":
        (new / "config.json").write_text((new / "config.json").read_text()[:100])
    elif kind == "weights":
        files[-1].write_bytes(files[-1].read_bytes()[: files[-1].stat().st_size // 2])
    elif kind == "missing":
        files[-1].unlink()
    old = new.with_name(f"{new.name}-old")
    os.rename(folder, old)
    os.rename(new, folder)
    shutil.rmtree(old)


def memory_mib(process: int) -> float:
    """What a process has to itself, in MiB."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"Private_\w+: +(\d+)", rollup)) / 1024


def start(folder: Path) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "valence", "serve", str(folder), "--port", "0"]
    with (folder.parent / "log").open("w") as log:
        server = subprocess.Popen([*command, "--queue", "5000"], stderr=log, text=True)
    for _ in range(600):
        found = re.search(r":(\d+)/", (folder.parent / "log").read_text())
        if found is not None:
            return server, int(found.group(1))
        time.sleep(0.1)
    raise SystemExit((folder.parent / "log").read_text())


def judged(model: Path, texts: list[str]) -> Expected:
    predictor = valence.Predictor(model)
    probs = predictor.predict_proba(texts)
    return Expected([predictor.classes[i] for i in probs.argmax(axis=1)], probs.max(axis=1))


def make_models(scratch: Path) -> list[Path]:
    """Two models of one corpus, whose probabilities differ."""
    folders = []
    for share in (0, 0.3):
        settings = {"data.noise_share": share}
        result = valence.train("demo", "tfidf-lr", runs=scratch / "runs", settings=settings)
        folders.append(scratch / "runs" / result.key / "model")
    return folders


def make_texts(draw: random.Random) -> list[str]:
    data = valence.load_dataset(valence.DataSpec(name="demo"))
    words = sorted({word for text in data.train.texts for word in text.split()})
    lengths = [1, 3, 10, 30, 100, 400]
    return [f"{i} " + " ".join(draw.choices(words, k=draw.choice(lengths))) for i in range(POOL)]


async def run(soak: Soak, clients: int, folder: Path, good: list[Path], scratch: Path) -> None:
    changes = asyncio.create_task(soak.change(folder, good, scratch))
    await asyncio.gather(*(soak.client() for _ in range(clients)))
    await changes


def report(tally: Tally, seconds: float, requests: int) -> int:
    """Print what was seen; the number of faults."""
    after = [mib for sent, mib in tally.memory if sent >= requests / 10]
    spread = max(abs(mib / after[0] - 1) for mib in after)
    kinds = {kind: tally.reloads.count(kind) for kind in dict.fromkeys(tally.reloads)}
    print(f"{requests:,} requests in {seconds:.0f} s; {tally.hung_up:,} hung up on purpose")
    print(f"  answered {tally.answered:,}, of the two models {tally.by_model}")
    print(f"  wrong {tally.wrong}, lost {tally.lost}, refused {tally.refused or 'none'}")
    print(f"  folders put in place: {kinds}")
    print(
        f"  memory after the first tenth: {after[0]:.1f} MiB, then {min(after):.1f} to "
        f"{max(after):.1f}, {100 * spread:.1f} % at most"
    )
    return tally.wrong + tally.lost + sum(tally.refused.values()) + (spread > FLAT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=16)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        good = make_models(scratch)
        texts = make_texts(random.Random(1))
        expected = [judged(model, texts) for model in good]
        differ = float(np.mean(np.abs(expected[0].scores - expected[1].scores) > 10 * TOLERANCE))
        print(f"two models, whose probabilities differ on {differ:.0%} of {POOL:,} texts")
        (scratch / "served").mkdir()
        folder = scratch / "served" / "model"
        shutil.copytree(good[0], folder)
        server, port = start(folder)
        soak = Soak(port, texts, expected, given.requests, server.pid)
        clock = time.monotonic()
        try:
            asyncio.run(run(soak, given.clients, folder, good, scratch))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
        log = (scratch / "served" / "log").read_text()
        faults = report(soak.tally, time.monotonic() - clock, given.requests)
        reloads, refused = log.count("Reloaded"), log.count("could not be loaded")
        print(f"  the server's log: {reloads} reloads, {refused} broken folders refused")
        faults += log.count("Traceback") + (server.returncode != 0) + (not reloads or not refused)
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
