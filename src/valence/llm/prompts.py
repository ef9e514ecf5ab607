"""Prompts: from a text and demonstrations to what a language model reads, and its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from valence.config.spec import build, parse_yaml
from valence.config.yaml_text import read_settings_file
from valence.errors import SpecError, UnknownNameError

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
ALLOWED = {
    "system": ("labels", "options"),
    "head": ("labels", "options"),
    "example": ("text", "answer", "labels", "options"),
    "query": ("text", "labels", "options"),
    "cue": (),
}
"""The placeholders each part of a template may hold."""
SUFFIXES = (".yaml", ".yml")
CONTENT_FREE = "N/A"
"""The text without content of Zhao et al. 2021."""


class Template(BaseModel):
    """A prompt template. A custom template is a YAML file with these fields.

    Placeholders: ``{labels}`` (a, b or c), ``{options}`` (one numbered label a line),
    ``{text}`` and, in an example, ``{answer}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str
    """Before the demonstrations."""
    example: str
    """A demonstration; a line break stands between two."""
    query: str
    """The text to be classified."""
    answers: Literal["label", "id"] = "label"
    """Whether the answer is the label's name or its number, from 0."""
    cue: str = ""
    """Precedes the answer where the model has no chat template."""
    system: str = ""
    """The system message, where the model has a chat template."""
    label_order: tuple[str, ...] = ()
    """The order of ``{labels}``, used if exactly these are the labels; else the data's order."""
    example_order: tuple[str, ...] = ()
    """The order of the demonstrations, likewise."""


TEMPLATES: dict[str, Template] = {
    # Text and orders as published with cross-lingual adaptive self-alignment.
    "self-alignment": Template(
        head=(
            "You are a sentiment classification model. Determine whether given Question is "
            "{labels} in terms of its sentiment:\n\n"
        ),
        example="Question:{text}\nAnswer:{answer}",
        query="{text}",
        cue="\nAnswer:",
        label_order=("positive", "negative", "neutral", "ambivalent"),
        example_order=("negative", "positive", "neutral", "ambivalent"),
    ),
    # The parts and their order are those of Hy-Mora's baselines; the words are ours.
    "options": Template(
        head="Task: choose the option that says what sentiment the text has.\n\n",
        example=(
            "Text: {text}\nOptions:\n{options}\nReturn only the id of the option.\n"
            "Answer: {answer}\n"
        ),
        query="Text: {text}\nOptions:\n{options}\nReturn only the id of the option.",
        answers="id",
        cue="\nAnswer: ",
    ),
    # For labels of any kind: topics, intents, sentiment.
    "labels": Template(
        head="Task: choose the label that fits the text.\n\n",
        example=(
            "Text: {text}\nLabels:\n{options}\nReturn only the id of the label.\nAnswer: {answer}\n"
        ),
        query="Text: {text}\nLabels:\n{options}\nReturn only the id of the label.",
        answers="id",
        cue="\nAnswer: ",
    ),
}


@dataclass(frozen=True)
class Demo:
    """A demonstration: a text and its class id."""

    text: str
    label: int


@dataclass(frozen=True)
class Question:
    """A text and its demonstrations."""

    text: str
    demos: tuple[Demo, ...] = ()

    def truncate(self, characters: int) -> Question:
        """The same with every text truncated."""
        demos = tuple(Demo(demo.text[:characters], demo.label) for demo in self.demos)
        return Question(self.text[:characters], demos)

    @property
    def longest(self) -> int:
        """Characters of its longest text."""
        return max([len(self.text), *(len(demo.text) for demo in self.demos)])

    def without_content(self) -> Question:
        """The same demonstrations before a text that says nothing."""
        return Question(CONTENT_FREE, self.demos)


@dataclass(frozen=True)
class PromptRenderer:
    """A template with the labels of a data set filled in.

    Attributes:
        template: The template.
        classes: Label names.
    """

    template: Template
    classes: tuple[str, ...]

    @property
    def answers(self) -> tuple[str, ...]:
        """The expected answer of every class."""
        if self.template.answers == "id":
            return tuple(str(i) for i in range(len(self.classes)))
        return self.classes

    @property
    def demo_classes(self) -> tuple[int, ...]:
        """Class ids in the order of the demonstrations."""
        names = _ordered(self.template.example_order, self.classes)
        return tuple(self.classes.index(name) for name in names)

    def instruction(self, demos: Sequence[Demo] = ()) -> str:
        """Everything before the text to be classified."""
        examples = [
            self._fill(self.template.example, text=demo.text, answer=self.answers[demo.label])
            for demo in demos
        ]
        return self._fill(self.template.head) + "\n".join(examples)

    def query(self, text: str) -> str:
        """The text to be classified, as the template puts it."""
        return self._fill(self.template.query, text=text)

    def user(self, text: str, demos: Sequence[Demo] = ()) -> str:
        """The whole question."""
        return self.instruction(demos) + ("\n" if demos else "") + self.query(text)

    def messages(self, text: str, demos: Sequence[Demo] = ()) -> list[dict[str, str]]:
        """The question as chat messages."""
        system = self._fill(self.template.system)
        first = [{"role": "system", "content": system}] if system else []
        return [*first, {"role": "user", "content": self.user(text, demos)}]

    def plain(self, text: str, demos: Sequence[Demo] = ()) -> str:
        """The question for a model without a chat template."""
        system = self._fill(self.template.system)
        start = f"{system}\n\n" if system else ""
        return start + self.user(text, demos) + self.template.cue

    def frame(self) -> str:
        """The text of the template without texts and answers."""
        parts = (self.template.system, self.template.head, self.template.example)
        return "\n".join(self._fill(part) for part in (*parts, self.template.query))

    def _fill(self, pattern: str, text: str = "", answer: str = "") -> str:
        names = _ordered(self.template.label_order, self.classes)
        options = "\n".join(f"{i}: {name}" for i, name in enumerate(self.classes))
        values = {"text": text, "answer": answer, "labels": listed(names), "options": options}
        # One pass, so that braces within a text are left as they are.
        return PLACEHOLDER.sub(lambda match: values[match[1]], pattern)


def listed(names: Sequence[str]) -> str:
    """``a, b or c``."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} or {names[-1]}"


def make_renderer(name: str, classes: tuple[str, ...]) -> PromptRenderer:
    """The template ``name`` (of :data:`TEMPLATES`, or a YAML file) with these labels.

    Raises:
        UnknownNameError: if there is no such template, or it has a wrong placeholder.
        SpecError: if a file cannot be read, a part is missing, or a label is not named in it.
    """
    renderer = PromptRenderer(find_template(name), classes)
    question = renderer.frame().lower()
    for i, label in enumerate(classes):
        shown = f"{i}: {label}" if renderer.template.answers == "id" else label
        if shown.lower() not in question:
            raise SpecError(
                f"Label {label!r} is not in the template {name!r}; write {{options}} or "
                "{labels} where the labels belong"
            )
    return renderer


def find_template(name: str) -> Template:
    """A built-in template or one in a YAML file, checked.

    Raises:
        UnknownNameError, SpecError: as :func:`make_renderer`.
    """
    if not name.endswith(SUFFIXES):
        if name not in TEMPLATES:
            raise UnknownNameError("template", name, TEMPLATES)
        return TEMPLATES[name]
    try:
        text = read_settings_file(name)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"Template {name} cannot be read: {error}") from None
    template = build(Template, parse_yaml(text, where=name))
    _check(template, name)
    return template


def _check(template: Template, where: str) -> None:
    parts: Mapping[str, str] = template.model_dump(include=set(ALLOWED))
    for part, text in parts.items():
        for name in PLACEHOLDER.findall(text):
            if name not in ALLOWED[part]:
                known = ALLOWED[part] or ("(none)",)
                raise UnknownNameError(f"placeholder in {part} of {where}:", name, known)
    for part, required in (("query", "text"), ("example", "text"), ("example", "answer")):
        if f"{{{required}}}" not in parts[part]:
            raise SpecError(f"Template {where}: {part} must hold {{{required}}}")


def _ordered(order: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(order if set(order) == set(classes) else classes)
