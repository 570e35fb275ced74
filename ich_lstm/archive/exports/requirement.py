"""Packages that an export requires and that are not installed with the library."""

from importlib import import_module
from typing import NamedTuple

from ich_lstm.errors import ConfigError


class Requirement(NamedTuple):
    """A package and the extra that installs it.

    Args:
        package: Name under which it is imported.
        extra: The extra of ``setup.cfg`` that installs it.
    """

    package: str
    extra: str

    def check(self, where: str) -> None:
        """Raise an error before any work is done if the package is not installed.

        Args:
            where: The option that requires the package, for the message, for example ``--dicom``.

        Raises:
            ConfigError: ``extra_missing``.
        """
        try:
            import_module(self.package)
        except ImportError as error:
            raise ConfigError(
                "extra_missing",
                where=where,
                got=f"{self.package} is not installed",
                todo=f'Install it with: pip install "ich_lstm[{self.extra}]"',
            ) from error


HIGHDICOM = Requirement(package="highdicom", extra="dicom-out")
