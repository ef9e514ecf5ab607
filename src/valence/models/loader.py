"""Load any saved model folder, whatever it is made of."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from valence.errors import DataError, ModelError, SpecError
from valence.models.base import Model
from valence.models.config_file import read_config
from valence.models.digests import check_digests
from valence.storage.plain_files import check_plain

logger = logging.getLogger(__name__)

# Each loader is imported when a folder needs it: an exported model is used without PyTorch.


def _torch(folder: Path) -> Model:
    from valence.models.torch_model import load_torch_model

    return load_torch_model(folder)


def _tfidf(folder: Path) -> Model:
    from valence.models.baselines import load_tfidf_model

    return load_tfidf_model(folder)


def _majority(folder: Path) -> Model:
    from valence.models.baselines import load_majority_model

    return load_majority_model(folder)


def _linear_views(folder: Path) -> Model:
    from valence.models.linear_views import load_linear_views_model

    return load_linear_views_model(folder)


def _ensemble(folder: Path) -> Model:
    from valence.models.ensemble import load_ensemble_model

    return load_ensemble_model(folder, load_model)


def _fusion(folder: Path) -> Model:
    from valence.models.fusion_model import load_fusion_model

    return load_fusion_model(folder)


def _transformers(folder: Path) -> Model:
    from valence.models.imported import load_imported_model

    return load_imported_model(folder)


def _exported(folder: Path) -> Model:
    from valence.models.exported import load_exported_model

    return load_exported_model(folder)


LOADERS: dict[str, Callable[[Path], Model]] = {
    "torch": _torch,
    "tfidf": _tfidf,
    "majority": _majority,
    "linear-views": _linear_views,
    "ensemble": _ensemble,
    "fusion": _fusion,
    "transformers": _transformers,
    "onnx": _exported,
    "openvino": _exported,
}


def load_model(folder: str | Path) -> Model:
    """The model saved in ``folder``; needs no network beyond its base encoder.

    Raises:
        ModelError: if the folder is missing, is not a model, or has a missing, broken or changed
            file.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ModelError(f"No model folder at {path}; train one: valence train DATA --out {path}")
    check_plain(path)
    if not check_digests(path):
        logger.warning("%s has no digests, so a changed file is not noticed; train it again", path)
    try:
        return LOADERS[read_config(path).loader](path)
    except (SpecError, DataError) as error:
        raise ModelError(f"{path} does not contain a valid model: {error}") from None
    except (MemoryError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "too large"
        raise ModelError(f"{path} cannot be loaded: it is {reason} for this machine") from None
