"""The documents that go in and out, as OpenAPI shows them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

STRICT = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
OPEN = ConfigDict(protected_namespaces=())


class Parameters(BaseModel):
    """Settings of one request."""

    model_config = STRICT

    top_k: int | None = Field(None, ge=1, description="Number of labels; default: all.")


class PredictRequest(BaseModel):
    """Texts to label, in the shapes of text-embeddings-inference."""

    model_config = STRICT

    inputs: str | list[str] | list[list[str]] = Field(
        description="One text or several; each may be in its own list.",
        examples=["Lovely food"],
    )
    parameters: Parameters | None = None
    raw_scores: bool = Field(
        False, description="Return log probabilities instead of probabilities."
    )
    truncate: bool | None = Field(
        None, description="false rejects texts longer than max_tokens; default: truncate them."
    )
    truncation_direction: Literal["Right", "right"] = Field(
        "Right", description="Texts are truncated at the end."
    )


class ExplainRequest(BaseModel):
    """Texts to explain."""

    model_config = STRICT

    inputs: str | list[str] = Field(description="One text, or a few.", examples=["Lovely food"])
    target: str | None = Field(None, description="Label to explain; default: the predicted one.")


class Score(BaseModel):
    """A label and its probability; of a model that may abstain, also whether it is given.

    Of a model of intensities, the label ``intensity`` and the number itself.
    """

    label: str
    score: float
    chosen: bool | None = None


class TokenShare(BaseModel):
    """A piece of the text, from ``start`` to ``end``, and how much it speaks for the label."""

    text: str
    start: int
    end: int
    score: float


class Near(BaseModel):
    """A training example near the text."""

    text: str
    label: str
    similarity: float


class Explained(BaseModel):
    """Why a text got its label."""

    text: str
    label: str
    probabilities: dict[str, float]
    tokens: list[TokenShare]
    neighbours: list[Near]


class Failure(BaseModel):
    """Why there is no result."""

    error: str
    error_type: str


class State(BaseModel):
    """How the server is."""

    status: str


class Bounds(BaseModel):
    """What one request may hold."""

    body_bytes: int
    text_chars: int
    texts: int
    explained: int


class Info(BaseModel):
    """Which model answers, and what it may be sent."""

    model_config = OPEN

    model: str
    method: str
    target: str = Field(description="classes or intensity")
    classes: list[str]
    max_tokens: int | None = Field(description="Maximum tokens per text; null without a limit.")
    reloads: int
    version: str
    limits: Bounds
