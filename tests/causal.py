"""Small causal language models of random weights, and a loopback server that fails on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_check.models import byte_pairs

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_causal(folder: Path, *, chat: bool = False, length: int = 2048, seed: int = 0) -> Path:
    """A 2-layer Llama of random weights with a byte-level tokenizer trained on a few words."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|end|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>"]
    words = ["Question: Answer: the good bad fine film is a positive negative", "neutral"]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=byte_pairs(words * 3, size=320, special=special),
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=special[2:],
        model_max_length=length,
    )
    if chat:
        fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=length,
        eos_token_id=0,
        pad_token_id=1,
        initializer_range=0.4,  # far enough apart that answers differ between texts
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


class FailingServer:
    """A hand-made HTTP server for failures alone; real answers are tested on a real server.

    Attributes:
        url: Base URL.
        requests: Bodies of all requests, in the order they came.
        behave: Called with (number, body); gives (status, body, headers).
        drip_seconds: Between the bytes of an answer; 0 sends it whole.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.url = ""
        self.drip_seconds = 0.0
        self.behave: Callable[[int, dict[str, Any]], tuple[int, str, dict[str, str]]] = (
            lambda number, body: (200, answer("0"), {})
        )


def answer(text: str, tokens: dict[str, float] | None = None) -> str:
    """A well-formed answer."""
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
    if tokens is not None:
        told = [{"token": token, "logprob": value} for token, value in tokens.items()]
        choice["logprobs"] = {"content": [{"token": text, "top_logprobs": told}]}
    return json.dumps({"choices": [choice]})


@contextmanager
def failing_server() -> Iterator[FailingServer]:
    """A :class:`FailingServer` on a free port of this machine."""
    told = FailingServer()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            body = json.loads(self.rfile.read(size))
            with lock:
                told.requests.append(body)
                told.keys.append(self.headers.get("Authorization"))
                number = len(told.requests)
            status, text, headers = told.behave(number, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            for piece in text.encode() if told.drip_seconds else ():
                time.sleep(told.drip_seconds)
                self.wfile.write(bytes([piece]))
                self.wfile.flush()
            if not told.drip_seconds:
                self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            return

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            return  # the client of an interrupted test is gone before its answer

    server = Quiet(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
