"""What an encoder's folder says beside its weights, in the files of sentence-transformers."""

from __future__ import annotations

from dataclasses import dataclass

from valence.data.pretrained import read_json

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


def resolve_prompt(setting: str | None, where: str) -> Prompt:
    """The prompt in effect.

    Args:
        setting: ``encoder.prompt``: the prompt, "" for none, or None for that of the folder.
        where: The encoder's folder or hub name.

    Raises:
        ModelError: if the folder's file of prompts is broken.
    """
    if setting is not None:
        note = f"prompt {setting!r} before every text, from encoder.prompt"
        return Prompt(setting, note if setting else "")
    values = read_json(where, PROMPTS_FILE)
    values = values if isinstance(values, dict) else {}
    prompts = {str(name): str(text) for name, text in (values.get("prompts") or {}).items()}
    default = values.get("default_prompt_name")
    text = prompts.get(str(default), "")
    if text:
        note = f"prompt {text!r} before every text, {default!r} of the encoder's folder"
        return Prompt(text, f"{note}; change it with encoder.prompt")
    names = ", ".join(name for name, prompt in prompts.items() if prompt)
    note = f"no prompt: the encoder's folder has several ({names}) but no default"
    return Prompt("", f"{note}; set encoder.prompt to use one" if names else "")
