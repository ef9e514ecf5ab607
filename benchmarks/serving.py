"""Load on a real server on loopback: 10,000 requests at once, then twice what it can do.

The server is ``valence serve`` in a process of its own; this process sends. First 10,000
requests are under way at the same time, each with a text of its own and the probability that
:class:`~valence.Predictor` gives this text: every answer must be there, have status 200, the
right label and the right probability. Then the server's capacity is measured, and requests
are sent at twice that rate for some seconds whatever comes back: what is too much must be
refused with 429, and what is accepted must be answered in a time that the queue bounds.

The default model is TF-IDF with logistic regression trained on the built-in corpus: small on
purpose, so that the server and not the model is what is measured.

Run it with ``python benchmarks/serving.py [--model FOLDER] [--requests 10000] [--seconds 10]``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import valence

TOLERANCE = 1e-5
QUEUE, WAIT_SECONDS = 1024, 2.0
HEAD = (
    "POST /predict HTTP/1.1\r\nhost: localhost\r\n"
    "content-type: application/json\r\ncontent-length: "
)


@dataclass
class Reply:
    """What came back; status 0 where nothing did."""

    status: int
    seconds: float
    label: str = ""
    score: float = 0.0
    retry_after: str = ""


async def ask(port: int, text: str) -> Reply:
    """One request on a connection of its own; status 0 where there was no answer."""
    clock = time.perf_counter()
    body = json.dumps({"inputs": text}).encode()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return Reply(0, time.perf_counter() - clock)
    try:
        writer.write(f"{HEAD}{len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        answer = await reader.read()
    except OSError:
        answer = b""
    finally:
        writer.close()
    seconds = time.perf_counter() - clock
    if not answer:
        return Reply(0, seconds)
    head, _, document = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if status != 200:
        found = re.search(rb"retry-after: (\d+)", head, re.IGNORECASE)
        return Reply(status, seconds, retry_after=found.group(1).decode() if found else "")
    best = json.loads(document)[0][0]
    return Reply(200, seconds, best["label"], best["score"])


async def all_at_once(port: int, texts: list[str]) -> list[Reply]:
    return await asyncio.gather(*(ask(port, text) for text in texts))


async def at_rate(port: int, texts: list[str], rate: float, seconds: float) -> list[Reply]:
    """Send ``rate`` requests a second, whether or not the ones before are answered."""
    tasks: list[asyncio.Task[Reply]] = []
    start = time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        due = int(passed * rate) - len(tasks)
        for _ in range(due):
            tasks.append(asyncio.create_task(ask(port, texts[len(tasks) % len(texts)])))
        await asyncio.sleep(0.002)
    return await asyncio.gather(*tasks)


async def closed_loop(port: int, texts: list[str], clients: int, seconds: float) -> float:
    """Requests a second of ``clients`` that each wait for their answer."""
    end = time.perf_counter() + seconds
    done = 0

    async def client(i: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            reply = await ask(port, texts[(i + done) % len(texts)])
            done += reply.status == 200

    await asyncio.gather(*(client(i) for i in range(clients)))
    return done / seconds


def start(folder: Path, *words: str) -> tuple[subprocess.Popen[str], int]:
    command = [
        sys.executable, "-m", "valence", "serve", str(folder), "--port", "0",
        "--max-connections", "20000", *words,
    ]  # fmt: skip
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    line = server.stderr.readline()
    found = re.search(r":(\d+)/", line)
    if found is None:
        raise SystemExit(line + server.stderr.read())
    return server, int(found.group(1))


def stop(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGTERM)
    _, said = server.communicate()
    print(f"  stopped with {server.returncode}: {said.strip()}")


def quantiles(replies: list[Reply]) -> str:
    seconds = np.array([reply.seconds for reply in replies])
    p50, p99 = np.quantile(seconds, [0.5, 0.99])
    return (
        f"p50 {1000 * p50:,.0f} ms, p99 {1000 * p99:,.0f} ms, most {1000 * seconds.max():,.0f} ms"
    )


def judge(name: str, replies: list[Reply], expected: list[tuple[str, float]]) -> int:
    """Print how many answers were lost or wrong; their number."""
    lost = sum(reply.status == 0 for reply in replies)
    wrong = sum(
        reply.status == 200 and (reply.label != label or abs(reply.score - score) > TOLERANCE)
        for reply, (label, score) in zip(replies, expected, strict=True)
    )
    print(f"  {name}: {lost} lost, {wrong} wrong or mixed up")
    return lost + wrong


def correctness(folder: Path, texts: list[str], expected: list[tuple[str, float]]) -> int:
    server, port = start(
        folder, "--queue", str(len(texts)), "--max-wait", "600", "--timeout", "600"
    )
    clock = time.perf_counter()
    replies = asyncio.run(all_at_once(port, texts))
    seconds = time.perf_counter() - clock
    good = sum(reply.status == 200 for reply in replies)
    print(f"{len(texts):,} requests at once: {good:,} answered in {seconds:.1f} s")
    print(f"  {quantiles(replies)}")
    faults = judge("each against its own label and probability", replies, expected)
    stop(server)
    return faults + len(texts) - good


def overload(
    folder: Path, texts: list[str], expected: list[tuple[str, float]], seconds: float, workload: int
) -> int:
    """Twice the capacity: the number of faults."""
    server, port = start(folder, "--queue", str(QUEUE), "--max-wait", str(WAIT_SECONDS))
    # Longer texts, so that the model and not this process sets the pace.
    capacity = asyncio.run(closed_loop(port, texts, clients=64, seconds=seconds / 2))
    print(f"capacity: {capacity:,.0f} requests/s (64 clients, {workload} words each)")
    replies = asyncio.run(at_rate(port, texts, 2 * capacity, seconds))
    accepted = [reply for reply in replies if reply.status == 200]
    shed = [reply for reply in replies if reply.status == 429]
    others = len(replies) - len(accepted) - len(shed)
    print(f"sent {len(replies) / seconds:,.0f} requests/s for {seconds:g} s")
    print(f"  the queue takes {QUEUE} texts or {WAIT_SECONDS:g} s")
    print(f"  accepted {len(accepted):,}: {quantiles(accepted)}")
    if shed:
        after = sorted({reply.retry_after for reply in shed})
        print(f"  refused with 429 {len(shed):,}: {quantiles(shed)}; Retry-After {after}")
    print(f"  anything else: {others}")
    wanted = [expected[i % len(texts)] for i in range(len(replies))]
    faults = judge("accepted ones", replies, wanted)
    stop(server)
    return faults + others + (not shed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--words", type=int, default=600)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.model
        if folder is None:
            result = valence.train("demo", "tfidf-lr", runs=scratch)
            folder = Path(scratch) / result.key / "model"
        predictor = valence.Predictor(folder)
        print(f"model: {predictor.config.method}, {len(predictor.classes)} classes")
        words = sorted(
            {
                w
                for t in valence.load_dataset(valence.DataSpec(name="demo")).train.texts
                for w in t.split()
            }
        )
        draw = random.Random(0)

        def made(count: int, length: int) -> tuple[list[str], list[tuple[str, float]]]:
            texts = [f"{i} " + " ".join(draw.choices(words, k=length)) for i in range(count)]
            shares = predictor.predict_proba(texts)
            best = [predictor.classes[i] for i in shares.argmax(axis=1)]
            return texts, list(zip(best, shares.max(axis=1).tolist(), strict=True))

        faults = correctness(folder, *made(given.requests, 12))
        faults += overload(folder, *made(200, given.words), given.seconds, given.words)
    print("no fault" if not faults else f"FAULTS: {faults}")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
