"""Locates the folder of a model on this machine or on the Hugging Face Hub."""

import re
from pathlib import Path

from ich_lstm.errors import CheckpointError

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

SAFE_FILES = ("*.json", "*.safetensors", "*.md")
"""The only files that are downloaded; they contain values and text, and execute nothing."""


def model_folder(name: Path | str) -> Path:
    """Find the folder of a model; a repository of the hub is downloaded to the hub's cache.

    Args:
        name: A folder, or ``owner/name`` of a repository; an existing path has precedence.

    Raises:
        CheckpointError: If there is neither such a folder nor such a repository.
    """
    path = Path(name)
    if path.exists():
        return path
    if not REPOSITORY.fullmatch(str(name)):
        raise CheckpointError(
            "missing_checkpoint",
            where=str(name),
            got="no such folder",
            expected="a folder, or owner/name of a repository of the Hugging Face Hub",
            todo="Check the name.",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(SAFE_FILES)))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise CheckpointError(
            "missing_checkpoint",
            where=str(name),
            got=f"no such folder, and the hub answered {type(error).__name__}: {str(error).strip().splitlines()[0]}",
            expected="a folder, or a repository that can be downloaded",
            todo="Check the name and the connection, or copy the files of the repository to a folder and name the folder.",
        ) from error
