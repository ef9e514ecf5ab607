"""The command line, as the end-to-end tests call it."""

from __future__ import annotations

from tests.e2e.conftest import tiny_words as tiny_words
from tests.e2e.conftest import valence as valence
