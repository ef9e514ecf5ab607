"""Model folders on the Hugging Face hub: push and fetch."""

from __future__ import annotations

from pathlib import Path

from valence.errors import ModelError
from valence.models.config_file import read_config

PRIVATE_PARTS = ("report/*", "report/**", "neighbours.parquet", ".*")
"""Not sent: the records and the nearest examples have texts of the data."""


def push(
    folder: str | Path,
    repo: str,
    *,
    private: bool = True,
    token: str | None = None,
    message: str = "A model of Valence",
) -> str:
    """Put a model folder on the hub without the texts of its data, in a new repository if need be.

    Args:
        folder: What ``valence train`` wrote.
        repo: ``owner/name`` on the hub.
        private: Whether a new repository is private.
        token: Of the hub; the one of ``hf auth login`` or ``HF_TOKEN`` when None.
        message: Of the commit.

    Returns:
        The address of the commit.

    Raises:
        ModelError: if the folder is no model or rests on a local encoder, or the hub cannot
            be reached or refuses.
    """
    from huggingface_hub import HfApi

    path = Path(folder)
    _check_whole(path)
    try:
        api = HfApi(token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo, folder_path=path, commit_message=message,
            ignore_patterns=list(PRIVATE_PARTS),
        )  # fmt: skip
    except Exception as error:
        raise ModelError(f"{path} was not pushed to {repo}: {_reason(error)}") from None
    return str(done.commit_url)


def fetch(name: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """The local folder of a model: ``name`` itself where it is one, else fetched from the hub.

    Args:
        name: A folder, or ``owner/name`` on the hub.
        revision: Branch, tag or commit on the hub.
        token: Of the hub.

    Raises:
        ModelError: if there is neither a folder nor a model on the hub, or no network and the
            model was not fetched before.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise ModelError(f"No model folder at {name}; for a model on the hub, use owner/name")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name, revision=revision, token=token, ignore_patterns=list(PRIVATE_PARTS)
            )
        )
    except Exception as error:
        raise ModelError(
            f"{name} is not a folder, nor a model on the hub: {_reason(error)}"
        ) from None


def _check_whole(folder: Path) -> None:
    """Refuse a model that nobody else could load."""
    config = read_config(folder)
    name = config.base_encoder
    if name is not None and Path(name).is_dir():
        raise ModelError(
            f"{folder} needs the encoder in the local folder {name}, which others do not have; "
            "train with a hub name, or with --set encoder.adaptation=full"
        )


def _reason(error: Exception) -> str:
    """One line, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set; unset it, or use a local folder"
    if isinstance(error, GatedRepoError):
        return "request access on its page, then log in: hf auth login"
    if isinstance(error, RepositoryNotFoundError):
        return (
            "the repository does not exist or is private; check its name, or log in: hf auth login"
        )
    if isinstance(error, RevisionNotFoundError):
        return "the revision does not exist; check --revision"
    if isinstance(error, HfHubHTTPError):
        return f"the hub answered {error.response.status_code}; check the name and: hf auth login"
    if isinstance(error, LocalEntryNotFoundError | OSError) or "Connect" in type(error).__name__:
        return "the hub cannot be reached; check the network, or use a local folder"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"
