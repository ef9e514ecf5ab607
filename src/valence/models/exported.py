"""Models that ``valence export`` wrote, run by ONNX Runtime or OpenVINO; PyTorch is not needed."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from valence.data.batches import Encoded, length_batches, rows_done
from valence.data.examples import Examples
from valence.data.files import whole_characters
from valence.distributed.device import Hardware
from valence.errors import ModelError
from valence.evaluation.task import Task
from valence.models.base import Model, Outputs, Progress
from valence.models.config_file import ModelConfig, read_config
from valence.models.cpu import is_bulk, thread_map, usable_cores
from valence.models.windows import split_windows
from valence.storage import atomic
from valence.storage.plain_files import inner_file, load_json

if TYPE_CHECKING:
    from valence.models.ngrams import NgramLogits

EXPORT_FILE = "export.json"
TOKENIZER_FILE = "tokenizer.json"
TOKEN_BUDGET = 512
"""Most tokens of a batch; measured best of 512, 1,024 and 2,048 on one core."""
LENGTH_STEP = {"onnx": 1, "openvino": 2}
"""Lengths are rounded up to a multiple of it: OpenVINO is slower where every batch has another
shape. Measured best of 1, 2, 4 and 8 on tweets."""
DISABLED_OPTIMIZERS = ["SkipLayerNormFusion", "BiasGeluFusion", "CommonSubexpressionElimination"]
"""Optimizers of ONNX Runtime 1.31 that make it slower: the kernels of the first two are slower on
a CPU than the nodes they replace, the third merges quantizers that must stay separate."""
EXTRAS = {"onnx": "onnx-runtime", "openvino": "openvino"}


class ExportSettings(BaseModel):
    """Contents of ``export.json``: how the file is run, and the results of its checks."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    runtime: Literal["onnx", "openvino", "transformers", "sentence-transformers"]
    precision: Literal["fp32", "int8"]
    file: str
    max_length: Annotated[int, Field(ge=1, le=1 << 24)]
    pad_id: Annotated[int, Field(ge=0, le=1 << 31)]
    feature_size: Annotated[int, Field(ge=0, le=1 << 20)]
    prompt: str = ""
    """In front of every text."""
    ngrams: bool = False
    """Whether logits of n-grams, which are beside the network, are added to its own."""
    checks: dict[str, Any] = {}


class Runner(Protocol):
    """A runtime that has the model open."""

    def run(
        self, batches: Iterator[tuple[np.ndarray, np.ndarray]], count: int
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """The index, the logits and the features of every batch of ids and mask, in any order.

        Args:
            batches: Ids and mask, each (rows, length), made as they are needed.
            count: How many there are.
        """
        ...


class OnnxRunner:
    """ONNX Runtime on the processor.

    Args:
        path: The model file.
        threads: Processor threads.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self.threads = path, threads
        self.session = self._open(threads)
        self.bulk: Any = None

    def run(
        self, batches: Iterator[tuple[np.ndarray, np.ndarray]], count: int
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """As :class:`Runner`."""
        if not is_bulk(count, self.threads):
            yield from map(partial(_run_onnx, self.session), enumerate(batches))
            return
        self.bulk = self.bulk or self._open(1)
        yield from thread_map(
            partial(_run_onnx, self.bulk), enumerate(batches), threads=self.threads
        )

    def _open(self, threads: int) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # With the memory arena, an unlucky layout of blocks can make a run a third slower.
        options.enable_cpu_mem_arena = False
        return onnxruntime.InferenceSession(
            str(self.path), options, providers=["CPUExecutionProvider"],
            disabled_optimizers=DISABLED_OPTIMIZERS,
        )  # fmt: skip


def _run_onnx(
    session: Any, batch: tuple[int, tuple[np.ndarray, np.ndarray]]
) -> tuple[int, np.ndarray, np.ndarray]:
    number, (ids, mask) = batch
    logits, features = session.run(
        ["logits", "features"], {"input_ids": ids, "attention_mask": mask}
    )
    return number, logits, features


class OpenVinoRunner:
    """OpenVINO on the processor: several batches at a time, each on its own stream.

    Args:
        path: The model file.
        threads: Processor threads.
    """

    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": threads,
            # A CPU with bfloat16 would use it by default, and its results would differ.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.jobs = threads + 1
        self.model = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(
        self, batches: Iterator[tuple[np.ndarray, np.ndarray]], count: int
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """As :class:`Runner`."""
        # Not an AsyncInferQueue: its callbacks need Python's lock, which its end may hold while
        # it waits for them.
        free = [self.model.create_infer_request() for _ in range(self.jobs)]
        running: deque[tuple[int, Any]] = deque()
        for number, (ids, mask) in enumerate(batches):
            if not free:
                first, request = running.popleft()
                yield first, *_outputs(request)
                free.append(request)
            request = free.pop()
            request.start_async({"input_ids": ids, "attention_mask": mask})
            running.append((number, request))
        for number, request in running:
            yield number, *_outputs(request)


def _outputs(request: Any) -> tuple[np.ndarray, np.ndarray]:
    request.wait()
    first, second = (request.get_output_tensor(i).data.copy() for i in range(2))
    return first, second


RUNNERS: dict[str, Callable[[Path, int], Runner]] = {
    "onnx": OnnxRunner,
    "openvino": OpenVinoRunner,
}


@dataclass
class ExportedModel(Model):
    """An exported model with its tokenizer; it cannot be trained."""

    folder: Path
    config: ModelConfig
    settings: ExportSettings
    tokenizer: Any
    token_budget: int = TOKEN_BUDGET
    runner: Runner | None = None
    ngram_logits: NgramLogits | None = None
    """What is added to the logits of the network."""
    task: Task = field(init=False)

    def __post_init__(self) -> None:
        self.task = self.config.task
        self.provenance = self.config.spec
        self.tokenizer.enable_truncation(self.settings.max_length)

    @property
    def max_tokens(self) -> int:
        """Most tokens of a text that are read."""
        return self.settings.max_length

    def prepare(self, hardware: Hardware) -> None:
        """Open the model file; exports run on the processor, in the format they were written in.

        Raises:
            SpecError: if the device is not available.
            ModelError: if the runtime is not installed or refuses the file, or another number
                format is requested.
        """
        super().prepare(hardware)
        if hardware.precision == "bf16":
            raise ModelError(
                f"{self.folder} computes in {self.settings.precision}; remove --precision bf16"
            )
        self.open(threads=hardware.threads or usable_cores())
        self.token_budget = hardware.batch_tokens or self.token_budget

    def open(self, *, threads: int) -> Runner:
        """Open the model file for as many threads.

        Raises:
            ModelError: if the runtime is not installed or refuses the file.
        """
        name, path = self.settings.runtime, self.folder / self.settings.file
        if not path.exists():
            raise ModelError(f"{path} is missing; export the model again")
        try:
            self.runner = RUNNERS[name](path, threads)
        except ImportError:
            raise ModelError(
                f"Running {self.folder} needs an extra: pip install 'valence[{EXTRAS[name]}]'"
            ) from None
        except Exception as error:  # runtimes raise errors of their own kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise ModelError(f"{path} cannot be run ({reason}); export the model again") from None
        return self.runner

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Token ids of texts, truncated at the length limit."""
        prompted = [self.settings.prompt + text for text in texts]
        encodings = self.tokenizer.encode_batch_fast(prompted)
        truncated = sum(1 for encoding in encodings if encoding.overflowing)
        return Encoded([encoding.ids for encoding in encodings], truncated)

    def predict(self, examples: Examples, progress: Progress | None = None) -> Outputs:
        """Outputs of N texts, in their order."""
        runner = self.runner or self.open(threads=usable_cores())
        encoded = self.encode([whole_characters(text) for text in examples.texts])
        count = len(encoded)
        logits = np.zeros((count, len(self.classes)), dtype=np.float32)
        features = np.zeros((count, self.settings.feature_size), dtype=np.float32)
        step, limit = LENGTH_STEP[self.settings.runtime], self.settings.max_length
        lengths = [min(-(-len(ids) // step) * step, limit) for ids in encoded.input_ids]
        batches = list(length_batches(lengths, token_budget=self.token_budget))
        padded = (
            self._padded([encoded.input_ids[i] for i in rows], lengths[rows[0]]) for rows in batches
        )
        answers = self._answers(runner, padded, len(batches))
        for done, (number, some_logits, some_features) in enumerate(answers, start=1):
            rows = batches[number]
            logits[rows] = some_logits[: len(rows)]
            features[rows] = some_features[: len(rows)]
            if progress is not None:
                progress(rows_done(done, len(batches), count), count)
        if self.config.logit_shift is not None:
            logits += np.asarray(self.config.logit_shift, np.float32)
        if self.ngram_logits is not None:
            logits += self.ngram_logits.of(list(examples.texts))
        return Outputs(logits, features, encoded.truncated)

    def _answers(
        self, runner: Runner, batches: Iterator[tuple[np.ndarray, np.ndarray]], count: int
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """What the runtime gives, in the shapes that ``config.json`` says."""
        width, size = len(self.classes), self.settings.feature_size
        try:
            for number, logits, features in runner.run(batches, count):
                if logits.shape[1:] != (width,) or features.shape[1:] != (size,):
                    raise ValueError(f"outputs of {logits.shape[1:]} and {features.shape[1:]}")
                yield number, logits, features
        except MemoryError:
            raise
        except Exception as error:  # runtimes raise errors of their own kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            path = self.folder / self.settings.file
            raise ModelError(f"{path} cannot be run ({reason}); export the model again") from None

    def windows(self, texts: Sequence[str]) -> list[list[str]]:
        """Every text in windows within the length limit; see ``valence.models.windows``."""
        return split_windows(
            self.tokenizer, texts, self.settings.max_length, prompt=self.settings.prompt
        )

    def save(self, folder: Path) -> None:
        """Copy the files into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        files = [*self.folder.iterdir(), *(self.folder / "onnx").glob("*")]
        for path in files:
            if path.is_file():
                with atomic.new_file(folder / path.relative_to(self.folder)) as copy:
                    shutil.copyfile(path, copy)

    def _padded(self, rows: list[list[int]], width: int) -> tuple[np.ndarray, np.ndarray]:
        mask = np.arange(width) < np.array([len(row) for row in rows])[:, None]
        ids = np.full(mask.shape, self.settings.pad_id, dtype=np.int64)
        ids[mask] = np.concatenate(rows)
        return ids, mask.astype(np.int64)


def load_exported_model(folder: Path) -> ExportedModel:
    """The model that ``valence export`` wrote.

    Raises:
        ModelError: if a file is missing or broken.
    """
    from tokenizers import Tokenizer

    config = read_config(folder)
    path = folder / EXPORT_FILE
    try:
        settings = ExportSettings.model_validate(load_json(path))
    except (OSError, ValueError, ValidationError):
        raise ModelError(f"{path} is missing or broken; export the model again") from None
    inner_file(folder, settings.file, of=EXPORT_FILE)
    if settings.runtime != config.loader:
        raise ModelError(f"{path} is for {settings.runtime} but {folder} for {config.loader}")
    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    except Exception:  # the library raises plain exceptions
        raise ModelError(
            f"{folder / TOKENIZER_FILE} is missing or broken; export the model again"
        ) from None
    ngrams = None
    if settings.ngrams:
        from valence.models.ngrams import NgramLogits

        ngrams = NgramLogits.load(folder, classes=len(config.classes))
    return ExportedModel(folder, config, settings, tokenizer, ngram_logits=ngrams)
