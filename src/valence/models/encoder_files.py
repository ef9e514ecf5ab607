"""What an encoder's folder says beside its weights, in the files of sentence-transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valence.errors import ModelError

PROMPTS_FILE = "config_sentence_transformers.json"


@dataclass(frozen=True)
class Prompt:
    """What is put in front of every text.

    Attributes:
        text: The prompt; empty for none.
        note: A line for the user: which prompt, and where it comes from; empty where there is
            nothing to choose from.
    """

    text: str
    note: str


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
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}); copy the encoder again") from None


def file_path(where: str, name: str) -> Path | None:
    """Where a file of an encoder is on disk; None where it has no such file.

    Args:
        where: A folder or a hub name, whose files are fetched where the hub can be reached.
        name: The file, relative to it.
    """
    if Path(where).is_dir():
        path = Path(where) / name
        return path if path.is_file() else None
    from transformers.utils.hub import cached_file

    folder, _, file = name.rpartition("/")
    try:
        cached = cached_file(
            where, file, subfolder=folder, _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )  # fmt: skip
    except (OSError, ValueError):  # no such repository; loading the weights says so
        return None
    return None if cached is None else Path(cached)


def resolve_prompt(setting: str | None, where: str) -> Prompt:
    """The prompt in effect.

    Args:
        setting: ``encoder.prompt``: the prompt, "" for none, or None for that of the folder.
        where: The encoder's folder or hub name.

    Raises:
        ModelError: if the folder's file of prompts is broken.
    """
    if setting is not None:
        note = f"prompt {setting!r} in front of every text, as encoder.prompt says"
        return Prompt(setting, note if setting else "")
    values = read_json(where, PROMPTS_FILE)
    values = values if isinstance(values, dict) else {}
    prompts = {str(name): str(text) for name, text in (values.get("prompts") or {}).items()}
    default = values.get("default_prompt_name")
    text = prompts.get(str(default), "")
    if text:
        note = f"prompt {text!r} in front of every text, {default!r} of the encoder's folder"
        return Prompt(text, f"{note}; encoder.prompt sets another")
    names = ", ".join(name for name, prompt in prompts.items() if prompt)
    note = f"no prompt: the encoder's folder has some ({names}) and none of them is its default"
    return Prompt("", f"{note}; set encoder.prompt to the text of one" if names else "")
