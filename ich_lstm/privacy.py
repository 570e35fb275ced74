"""The separation of private and shareable files: keyed hashes, and the one folder that may hold identities."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from ich_lstm.errors import ConfigError

KEY_BYTES = 32
ID_HEX_DIGITS = 16
"""64 bits: among a million scans, two share an id with a chance below 1 in 10 million."""

PRIVATE = Path("private")
"""The folder, below that of a run or a prediction, for everything that ties to a person."""


class ProjectKey:
    """A secret that turns identifiers into ids that cannot be traced back without it.

    A plain hash of a patient id can be reversed by trying all ids; a keyed one (HMAC-SHA256) cannot. The same key gives
    the same ids, so predictions, caches and tables of one project join; another project's ids differ.

    Args:
        secret: 32 random bytes.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"ProjectKey: {len(secret)} bytes, expected {KEY_BYTES}")
        self._secret = secret

    @classmethod
    def open(cls, path: Path | None = None) -> "ProjectKey":
        """Read the key file, or make it (readable by its owner only).

        Args:
            path: The key file; by default ``project.key`` in the user's configuration folder.

        Raises:
            ConfigError: If the file holds no key, or cannot be made.
        """
        if path is None:
            from platformdirs import user_config_path

            path = user_config_path("ich_lstm") / "project.key"
        try:
            if not path.exists():
                _make_key_file(path)
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                "project_key_unusable",
                where=str(path),
                got=str(error),
                todo="Name another key file: [project_key=FILE].",
            ) from error
        try:
            return cls(bytes.fromhex(text))
        except ValueError as error:
            raise ConfigError(
                "project_key_invalid",
                where=str(path),
                got=f"{len(text)} characters",
                expected=f"{2 * KEY_BYTES} hexadecimal digits",
                todo="Name the right file with [project_key=FILE], or remove this one to get a new key (and new ids).",
            ) from error

    def hash_id(self, identifier: str) -> str:
        """The id that stands for an identifier in everything shareable: 16 hexadecimal digits."""
        # surrogatepass: file names that are no UTF-8, and damaged headers, have ids too.
        return hmac.new(self._secret, identifier.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:ID_HEX_DIGITS]


def _make_key_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    aside.touch(mode=0o600)
    aside.write_text(secrets.token_hex(KEY_BYTES))
    try:
        # A link fails if the name is taken: of two processes one makes the key, and nobody reads half of it.
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink()


def private_folder(parent: Path) -> Path:
    """Make, and return, the folder below ``parent`` where everything that ties to a person lies (mode 0700)."""
    folder = parent / PRIVATE
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder
