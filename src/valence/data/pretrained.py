"""The only door to ``from_pretrained``: no code of a folder is run, and nothing is asked.

A folder or hub repository of transformers is a stranger's input. Before anything of it is loaded,
its JSON files are looked at: one that names Python code (``auto_map``) is refused, whatever
transformers would do about it. Weights are read from safetensors alone, since all other formats can
hold code. A contract test holds all other modules to this one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from valence.data.quiet import quiet_transformers
from valence.errors import ModelError
from valence.storage.plain_files import check_plain, load_json

_COMMIT = re.compile("[0-9a-f]{40}")
CODE_KEY = "auto_map"
CONFIG_FILES = (
    "config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json",
)  # fmt: skip
"""What the classes of transformers look for code in; of a folder, every ``*config*.json``."""
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
UNSAFE = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".pkl")
LARGEST_NUMBER = 10**9
"""Of a configuration: no size, width or count of a real model comes near it."""
ROOM = 1 << 30
"""Bytes that a table of embeddings may have beyond eight times those of the weights' files."""


def load_network(
    kind: Any, where: str | Path, *, options: Mapping[str, Any] | None = None,
    local_only: bool = False,
) -> Any:  # fmt: skip
    """A network of transformers with the weights of a folder or hub repository.

    Args:
        kind: A class of transformers, such as ``AutoModel``.
        where: The folder, or a hub name.
        options: Further arguments of its ``from_pretrained``, such as ``dtype``.
        local_only: Whether only the local cache is read.

    Raises:
        ModelError: if it needs code of its own, or has no safetensors.
        OSError, ValueError: as transformers raises them.
    """
    check_source(where, weights=True)
    with quiet_transformers():
        return kind.from_pretrained(
            str(where), trust_remote_code=False, use_safetensors=True,
            local_files_only=local_only, **(options or {}),
        )  # fmt: skip


def load_companion(kind: Any, where: str | Path, *, local_only: bool = False) -> Any:
    """What lies beside weights: a tokenizer, a configuration, an image or sound processor.

    Args:
        kind: A class of transformers, such as ``AutoTokenizer``.
        where: The folder, or a hub name.
        local_only: Whether only the local cache is read.

    Raises:
        ModelError: if it needs code of its own.
        OSError, ValueError: as transformers raises them.
    """
    check_source(where)
    with quiet_transformers():
        return kind.from_pretrained(
            str(where), trust_remote_code=False, local_files_only=local_only
        )


def network_of_config(kind: Any, config: Any) -> Any:
    """A network of transformers with new weights, or none under ``torch.device("meta")``."""
    return kind.from_config(config, trust_remote_code=False)


def load_adapter(base: Any, folder: str | Path, *, is_trainable: bool = False) -> Any:
    """A network with the adapter of a folder; every weight of it comes from the file.

    Args:
        base: The network.
        folder: With ``adapter_config.json`` and safetensors.
        is_trainable: Whether it is trained further.

    Raises:
        ModelError: if it is no such folder, or its weights do not fit.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    check_adapter(folder)
    tensors = load_file(Path(folder) / ADAPTER_WEIGHTS)
    adapted = PeftModel.from_pretrained(base, str(folder), is_trainable=is_trainable)
    own = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    shapes = {name: tuple(value.shape) for name, value in own.items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    wrong = sorted(name for name in {*shapes, *given} if shapes.get(name) != given.get(name))
    if wrong:
        raise ModelError(
            f"{Path(folder) / ADAPTER_WEIGHTS} does not fit its configuration: {wrong[0]}"
        )
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise ModelError(f"{Path(folder) / ADAPTER_WEIGHTS} contains numbers that are not finite")
    return adapted


def load_adapted(kind: Any, folder: str | Path, *, options: Mapping[str, Any] | None = None) -> Any:
    """An adapter's folder with the base that it names: as ``AutoPeftModel`` of peft.

    Args:
        kind: A class of peft, such as ``AutoPeftModelForCausalLM``.
        folder: With ``adapter_config.json`` and safetensors.
        options: Further arguments, such as ``dtype``.

    Raises:
        ModelError: if adapter or base need code of their own, or have no safetensors.
        OSError, ValueError, KeyError: as peft and transformers raise them.
    """
    config = check_adapter(folder)
    base, revision = str(config.get("base_model_name_or_path")), config.get("revision")
    local_only = not Path(base).is_dir() and not is_commit(revision)
    if local_only and file_path(base, "config.json", local_only=True) is None:
        raise ModelError(
            f"{folder} names the base {base!r} without a revision, so it is not downloaded; "
            f"download it once: hf download {base}"
        )
    check_source(base, weights=True)
    with quiet_transformers():
        return kind.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=local_only, **(options or {})
        )


def is_commit(revision: object) -> bool:
    """Whether a revision names a commit, which never changes; a branch or tag may."""
    return isinstance(revision, str) and _COMMIT.fullmatch(revision) is not None


def check_adapter(folder: str | Path) -> Mapping[str, Any]:
    """The configuration of an adapter's folder.

    Raises:
        ModelError: if it names code, or the folder has no safetensors.
    """
    path = Path(folder)
    if not (path / ADAPTER_CONFIG).is_file():
        raise ModelError(f"{path / ADAPTER_CONFIG} is missing; copy the adapter again")
    config = _object(path / ADAPTER_CONFIG)
    mapping = config.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, Mapping) else None
    if library is not None and str(library).partition(".")[0] != "transformers":
        raise ModelError(f"{path} needs Python code ({library}), which is never run")
    if not (path / ADAPTER_WEIGHTS).is_file():
        raise _without_safetensors(path)
    check_source(path)
    return config


def check_source(where: str | Path, *, weights: bool = False) -> None:
    """Refuse a folder or hub repository that must not or cannot be loaded.

    Args:
        where: The folder, or a hub name.
        weights: Whether weights are read too.

    Raises:
        ModelError: if it names code, has files that are no plain files, sizes beyond all measure,
            or no safetensors.
    """
    folder, names = Path(where), list(CONFIG_FILES)
    if folder.is_dir():
        check_plain(folder, links=True)
        names += sorted({path.name for path in folder.glob("*config*.json")} - {*names})
    for name in names:
        values = read_json(str(where), name)
        if _names_code(values):
            raise ModelError(
                f"{where} needs Python code from its own folder ({CODE_KEY} in {name}), which is "
                "never run; use one whose architecture transformers has, or remove that entry if "
                "it has it"
            )
        if name == "config.json" and values is not None:
            _check_numbers(values, f"{where}, {name}")
    if weights and folder.is_dir():
        _check_weights(folder)


def read_json(where: str, name: str) -> Any:
    """The contents of a JSON file of an encoder; None where it has no such file.

    Args:
        where: A folder or a hub name.
        name: The file, relative to it.

    Raises:
        ModelError: if the file is broken.
    """
    path = file_path(where, name)
    if path is None:
        return None
    try:
        return load_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}); copy the encoder again") from None


def file_path(where: str, name: str, *, local_only: bool = False) -> Path | None:
    """Where a file of an encoder is on disk; None where it has no such file.

    Args:
        where: A folder or a hub name, whose files are fetched where the hub can be reached.
        name: The file, relative to it.
        local_only: Whether only the local cache is read.

    Raises:
        ModelError: if the name leaves the folder, or the file is no plain file.
    """
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts:
        raise ModelError(f"{where} names the file {name}, which is missing")
    if Path(where).is_dir():
        path = Path(where) / name
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelError(f"{path} is not a regular file; copy the folder again")
        return path if path.is_file() else None
    from transformers.utils.hub import cached_file

    folder, _, file = name.rpartition("/")
    try:
        cached = cached_file(
            where, file, subfolder=folder, local_files_only=local_only,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )  # fmt: skip
    except (OSError, ValueError):  # no such repository; loading the weights says so
        return None
    return None if cached is None else Path(cached)


def _object(path: Path) -> Mapping[str, Any]:
    try:
        values = load_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}); copy its folder again") from None
    if not isinstance(values, Mapping):
        raise ModelError(f"{path} is not a JSON object; copy its folder again")
    return values


def _check_weights(folder: Path) -> None:
    """Refuse a folder with weights that are not safetensors, or far smaller than its sizes."""
    if not (folder / "config.json").is_file():
        return  # transformers says what is missing
    files = list(folder.glob("*.safetensors"))
    others = [path.name for path in folder.iterdir() if path.suffix in UNSAFE]
    if not files and others:
        raise _without_safetensors(folder)
    values = _object(folder / "config.json")
    rows, width = values.get("vocab_size"), values.get("hidden_size")
    if isinstance(rows, int) and isinstance(width, int) and files:
        held = sum(os.path.getsize(path) for path in files)
        if rows * width > 8 * held + ROOM:
            raise ModelError(
                f"{folder}: its config.json says {rows} × {width} embeddings and its weights have "
                f"{held} bytes; copy the folder again"
            )


def _without_safetensors(folder: Path) -> ModelError:
    return ModelError(
        f"{folder} has no safetensors; other weights can contain code and are not loaded. Save it "
        "again with save_pretrained of a recent transformers"
    )


def _names_code(values: Any) -> bool:
    """Whether a configuration, or one within it, names code."""
    if isinstance(values, Mapping):
        return bool(values.get(CODE_KEY)) or any(map(_names_code, values.values()))
    return isinstance(values, list) and any(map(_names_code, values))


def _check_numbers(values: Any, where: str) -> None:
    """Refuse numbers that no real model has, before networks of such sizes are made."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            limit = 10_000 if "layers" in str(name) else LARGEST_NUMBER
            if isinstance(value, int) and abs(value) > limit:
                raise ModelError(
                    f"{where}: {name} is {value}, which is not plausible; copy it again"
                )
            _check_numbers(value, where)
    elif isinstance(values, list):
        for value in values:
            _check_numbers(value, where)
