"""Separates private from shareable files: keyed hashes, and the one folder that may hold identities."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from ich_lstm.errors import ConfigError

KEY_BYTES = 32
ID_HEX_DIGITS = 16
"""Length of an id: 64 bits, so that the probability that two of a million scans share an id is below 1 in 10 million."""

PRIVATE = Path("private")
"""Subfolder of a run or a prediction for everything that identifies a person."""


class ProjectKey:
    """A secret that turns identifiers into ids, which cannot be traced back without it.

    A plain hash of a patient id can be reversed by trying all ids; a keyed one (HMAC-SHA256) cannot. The same key gives
    the same ids, so that predictions, caches and tables of one project can be joined; ids of another project differ.

    Args:
        secret: 32 random bytes.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"ProjectKey: {len(secret)} bytes, expected {KEY_BYTES}")
        self._secret = secret

    @classmethod
    def open(cls, path: Path | None = None) -> "ProjectKey":
        """Read the key file, or create it, readable by its owner only.

        Args:
            path: Path of the key file; by default ``project.key`` in the user's configuration folder.

        Raises:
            ConfigError: If the file does not hold a key, or cannot be created.
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
                todo="Give the path of another key file: [project_key=FILE].",
            ) from error
        try:
            return cls(bytes.fromhex(text))
        except ValueError as error:
            raise ConfigError(
                "project_key_invalid",
                where=str(path),
                got=f"{len(text)} characters",
                expected=f"{2 * KEY_BYTES} hexadecimal digits",
                todo="Give the path of the right file: [project_key=FILE]; or remove this file to get a new key, and new ids.",
            ) from error

    def hash_id(self, identifier: str) -> str:
        """The id that replaces an identifier in all shareable files: 16 hexadecimal digits."""
        # surrogatepass: file names that are not UTF-8, and damaged headers, need ids too.
        return hmac.new(self._secret, identifier.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:ID_HEX_DIGITS]


def _make_key_file(path: Path) -> None:
    """Write a new random key, readable by its owner only, unless another process has just done so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    aside.touch(mode=0o600)
    aside.write_text(secrets.token_hex(KEY_BYTES))
    try:
        # A link fails if the name is taken, so one of two processes creates the key, and neither reads a partial one.
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink()


def private_folder(parent: Path) -> Path:
    """Create and return the subfolder of ``parent`` for everything that identifies a person (mode 0700)."""
    folder = parent / PRIVATE
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder
