"""What a question depends on beside its spec, as a hash: a local model's files, a template."""

from __future__ import annotations

import hashlib
from pathlib import Path

from valence.config.spec import RunSpec
from valence.errors import SpecError
from valence.llm.prompts import SUFFIXES, find_template
from valence.storage import cache

WHOLE_BYTES = 1 << 20
SAMPLES, SAMPLE_BYTES = 64, 1 << 16
"""Of a large file that many pieces of this size are read: weights that were trained differ
everywhere, and reading 15 GB before every run would take longer than many a run."""


def settled(spec: RunSpec) -> RunSpec:
    """The spec with ``llm.content`` filled in, so that another model makes another run.

    Raises:
        SpecError: if no model is named, or the template is no template.
    """
    if not spec.llm.model:
        raise SpecError("No language model is named; give --model (or --set llm.model=NAME)")
    parts = []
    folder = Path(spec.llm.model)
    if spec.llm.server is None and folder.is_dir():
        parts.append(folder_key(folder))
    template = find_template(spec.llm.template)
    if spec.llm.template.endswith(SUFFIXES):
        parts.append(template.model_dump_json())
    content = cache.content_key(parts) if parts else None
    asked = spec.llm.model_copy(update={"content": content})
    return spec.model_copy(update={"llm": asked})


def folder_key(folder: Path) -> str:
    """Sixteen hex digits of the files of a model; of large ones evenly spread pieces."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= WHOLE_BYTES + SAMPLES * SAMPLE_BYTES:
                digest.update(stream.read())
                continue
            for i in range(SAMPLES):
                stream.seek(i * (size - SAMPLE_BYTES) // (SAMPLES - 1))
                digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]
