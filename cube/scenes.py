"""Scene: one acquisition of one granule with every difference between providers removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cube.errors import SearchError
from cube.grid import NativeGrid

FORMAT = "cropcube-scenes-1"


class Scene(BaseModel):
    """One acquisition of one granule, normalised.

    Attributes
    ----------
    id : str
        The STAC item's id.
    datetime : pandas.Timestamp-compatible str
        Sensing time, RFC 3339 in UTC.
    satellite : str
        Letter of the spacecraft, ``A``; empty when unknown.
    acquisition : str
        Which pass over the granule this is: the datatake, ``S2A_20180826T104021``, or satellite
        and sensing time where no datatake is stated. Equal for the parts of one pass.
    grid : NativeGrid
        The 10 m grid of the granule (or of a clip of it).
    hrefs : dict of str to str
        Common band name, and ``scl``, to the unsigned href of its raster.
    subtract : int or None
        DN to subtract from every valid reflectance value: 1000 where the provider left the offset
        of processing baseline 04.00 in the pixels, else 0. None while undecided: a plan holds no
        such scene.
    decided : {"metadata", "pixels", "hand"} or None
        What decided `subtract`: the catalogue's facts, a test of pixels while planning, or the
        user. None while undecided.
    why : str
        What the facts or the pixels said, where the facts did not decide; else empty.
    baseline : str
        Processing baseline, ``04.00``.
    provider : str
        Whose rules were used and which files may be opened, for `cube.providers.get_provider`:
        ``earth-search``, or ``earth-search@<folder of the items file, or origin of the API>``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    datetime: str
    satellite: str
    acquisition: str
    grid: NativeGrid
    hrefs: dict[str, str]
    subtract: int | None
    decided: Literal["metadata", "pixels", "hand"] | None = "metadata"
    why: str = ""
    baseline: str
    provider: str

    @model_validator(mode="after")
    def _decided_or_not(self) -> Scene:
        if (self.subtract is None) != (self.decided is None):
            raise ValueError(f"{self.id}: `subtract` and `decided` are both None, or neither is")
        return self


class Removed(BaseModel):
    """An item that did not become an observation of its own, and why.

    `reason` is one of ``duplicate`` (another processing of the same acquisition was kept; `kept`
    is its id), ``refused`` (facts missing or contradictory, files not allowed), ``excluded`` (by
    hand), ``nothing-clear`` (its offset is undecided and no clear pixel of the area could tell) or
    ``part`` (it is a scene, but one observation together with `kept`, another part of its pass);
    `detail` says it in words. `granule`, `datetime` and `satellite` are empty where the item does
    not state them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    reason: str
    detail: str
    kept: str | None = None
    granule: str = ""
    datetime: str = ""
    satellite: str = ""


class Scenes(BaseModel):
    """What a search found, frozen: reruns and audits see the same scenes.

    Iterating gives the scenes in order of time; parts of one pass stand together, in order of id.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = FORMAT
    source: str
    scenes: tuple[Scene, ...]
    removed: tuple[Removed, ...] = ()

    def __iter__(self) -> Iterator[Scene]:  # type: ignore[override]
        return iter(self.scenes)

    def __len__(self) -> int:
        return len(self.scenes)

    def save(self, path: str | Path) -> Path:
        """Write to one JSON file; returns its path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Scenes:
        """Read a file written by `save`.

        Raises
        ------
        SearchError
            If the file is missing or is not a list of scenes of this format.
        """
        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SearchError(f"{path}: not readable as scenes ({error})") from error
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise SearchError(f"{path}: not a file written by `cropcube search` ({FORMAT})")
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise SearchError(f"{path}: damaged, {where}: {first['msg']}; search again") from error
