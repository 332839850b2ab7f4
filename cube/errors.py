"""Every error a person can meet, each saying what was wrong, where, and what to change."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"(?i)\b(sig|se|sv|skoid|token|access_token|x-amz-[a-z-]+|authorization|password)"
    r"(=|%3D|:\s*)(bearer\s+)?[^&\s'\"]+"
)
_USERINFO = re.compile(r"(?i)(https?://)[^/@\s]+@")


def redact(text: str) -> str:
    """Return `text` with tokens, signatures and userinfo replaced by ``***``."""
    return _USERINFO.sub(r"\1***@", _SECRET.sub(r"\1\2***", text))


class CropcubeError(Exception):
    """Base of all cropcube errors; its message never carries a secret."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class RecipeError(CropcubeError, ValueError):
    """A recipe that cannot be built: unknown band, partial month, empty period."""


class AreaError(CropcubeError, ValueError):
    """An area that is empty, invalid or not readable."""


class SearchError(CropcubeError, OSError):
    """A catalogue that does not answer, or a file of items that is not one."""


class AccessError(CropcubeError, OSError):
    """Files that only a token or credentials open, and none could be had."""


class SpectralIndexError(CropcubeError, ValueError):
    """A spectral index that is unknown or lacks a band or a constant."""


class SceneError(CropcubeError, ValueError):
    """An item that cannot become a scene: missing facts or contradicting ones."""


class PlanError(CropcubeError, ValueError):
    """An area, scenes and a recipe that do not go together."""


class ReadError(CropcubeError, OSError):
    """A block that could not be read; carries its facts for runners that react.

    Attributes
    ----------
    item, asset, tile : str
        What was being read, and for which tile.
    attempt : int
        How many times it was tried.
    kind : str
        Class of failure: ``missing``, ``refused``, ``forbidden``, ``corrupt`` or ``transport``.
    """

    def __init__(
        self, message: str, *, item: str, asset: str, tile: str, attempt: int, kind: str
    ) -> None:
        super().__init__(message)
        self.item, self.asset, self.tile = item, asset, tile
        self.attempt, self.kind = attempt, kind

    def __reduce__(self) -> tuple[object, ...]:
        facts = (self.args[0], self.item, self.asset, self.tile, self.attempt, self.kind)
        return _restore_read_error, facts


def _restore_read_error(
    message: str, item: str, asset: str, tile: str, attempt: int, kind: str
) -> ReadError:
    return ReadError(message, item=item, asset=asset, tile=tile, attempt=attempt, kind=kind)


class StoreError(CropcubeError, OSError):
    """A store that is incomplete, damaged or was made for something else."""


class LabelError(CropcubeError, ValueError):
    """Parcels or a legend that cannot give labels."""


class SplitError(CropcubeError, ValueError):
    """A split that leaks, or leaves nothing to train or test on."""


class ArtefactError(CropcubeError, ValueError):
    """A model folder that is damaged or does not fit the data given to it."""


class StudyError(CropcubeError, ValueError):
    """A study file with a mistake; the message names the line."""


class BudgetError(CropcubeError, ValueError):
    """A price table with a mistake, or a job that may cost more than was allowed."""


class JobError(CropcubeError, ValueError):
    """A job file with a mistake, or a run's folder that cannot be used as asked."""


class ClusterError(CropcubeError, RuntimeError):
    """A cluster that cannot be had as it was asked for, or does not answer."""


class ClusterLostError(ClusterError):
    """The Dask cluster went away while work was still due."""


class VersionMismatchError(ClusterError):
    """Client, scheduler and workers run different software."""
