"""The encoder that a model folder names and does not hold: the one it was trained with, no other.

A model folder says which files of the encoder it was trained with: the commit of a hub repository,
or a hash of a folder. A repository is fetched at that commit alone.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from valence.data.pretrained import is_commit
from valence.errors import ModelError
from valence.models.built_in import BUILT_IN, encoder_content
from valence.storage.key import folder_content

if TYPE_CHECKING:
    from valence.models.config_file import ModelConfig

PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*/*.json", "*/*.safetensors")
"""Files of a repository that encoders are loaded from."""
LOADED = (
    "config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*",
    "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
"""Files of a folder that decide what a network and its tokenizer compute. Prompts and pooling are
in the model folder itself."""

logger = logging.getLogger(__name__)


def base_content(name: str | None) -> str | None:
    """What identifies the files of a base encoder; None of one that comes with Valence."""
    if name is None or name in BUILT_IN:
        return None
    if Path(name).is_dir():
        return folder_content(Path(name), LOADED)
    content = encoder_content(name)
    return None if content == name else content


def base_location(folder: Path, config: ModelConfig) -> str | None:
    """Where the base encoder of a model folder is; None: where its name says.

    Raises:
        ModelError: if its files are not those of the training, or it is not fetched because its
            revision is not known.
    """
    name, content = config.base_encoder, config.encoder_content
    if name is None or name in BUILT_IN:
        return None
    if not Path(name).is_dir():
        return _snapshot(folder, name, content)
    if content is not None and base_content(name) != content:
        raise ModelError(
            f"{folder} was trained with other files of the encoder {name} than are there now; "
            "restore them, or train the model again"
        )
    return None


def _snapshot(folder: Path, name: str, revision: str | None) -> str:
    """The files of a hub repository at a commit; those of the local cache where none is known."""
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError(f"{folder} needs the encoder {name}, but the folder does not exist")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    pinned = is_commit(revision)
    try:
        try:
            return snapshot_download(
                name, revision=revision if pinned else None, local_files_only=True
            )
        except OSError:
            if not pinned:
                raise
        logger.warning("%s needs the encoder %s, fetched at revision %s", folder, name, revision)
        return snapshot_download(name, revision=revision, allow_patterns=list(PATTERNS))
    except (OSError, ValueError, HFValidationError, HfHubHTTPError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        advice = f"; download it once: hf download {name}"
        advice += f" --revision {revision}" if pinned else ", since the folder names no revision"
        raise ModelError(
            f"{folder} needs the encoder {name!r}, which cannot be loaded ({reason}){advice}"
        ) from None
