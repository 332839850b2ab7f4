"""A study is a file: what is searched, labelled, trained, scored and mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cube.errors import ArtefactError, StudyError
from cube.recipe import Recipe
from cube.simulate import Settings, demo_settings
from cube.yamlfile import read_yaml
from model import networks
from model.objectives import Loss
from model.samples import require_periods

#: Inside a study that simulates its archive, paths may start with this.
ARCHIVE = "archive:"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Simulation(_Part):
    """The simulated archive of a study: all eight regions, or the demo's three."""

    preset: Literal["france", "demo"] = "france"
    seed: int = Field(default=0, ge=0)

    @property
    def settings(self) -> Settings:
        """Return the settings of the archive."""
        if self.preset == "demo":
            return demo_settings(seed=self.seed)
        return Settings(seed=self.seed)


class Places(_Part):
    """Zones chosen around places by their share of cropland (ESA WorldCover class 40)."""

    worldcover: str
    places: dict[str, tuple[float, float]]
    count: int = Field(default=5, ge=1)
    size: float = Field(default=10_000, gt=0)
    gap: float = Field(default=2_000, ge=0)
    radius: float = Field(default=40_000, gt=0)


class Zones(_Part):
    """Study areas: a file with ``zone``, ``region``, ``test``; or chosen; or the whole of an area.

    Exactly one of the three is given.
    """

    file: str | None = None
    choose: Places | None = None
    area: str | tuple[float, float, float, float] | None = None

    @model_validator(mode="after")
    def _one(self) -> Zones:
        if sum(v is not None for v in (self.file, self.choose, self.area)) != 1:
            raise ValueError("give exactly one of file, choose, area")
        return self


class LegendChoice(_Part):
    """Which legend, at which level; only classes with `min_parcels` parcels are kept."""

    name: str = "turkoglu"
    level: Literal["level1", "level2", "level3", "level3_fr_ext", "hcat3_name"] = "level3_fr_ext"
    year: int = 2023
    min_parcels: int = Field(default=1, ge=1)


class Labels(_Part):
    """Parcels and how they become labels."""

    parcels: str
    legend: LegendChoice = LegendChoice()
    erosion: float = Field(default=0, ge=0)
    background: bool = True


class SplitChoice(_Part):
    """By zone (zones flagged ``test`` test), or by parcel where there is one small area."""

    by: Literal["zone", "parcel"] = "zone"
    folds: int = Field(default=0, ge=0, le=10)
    buffer: float = Field(default=0, ge=0)


class Network(_Part):
    """A network and its training; see `model.train`."""

    name: str = "hybrid"
    preset: str | None = None
    options: dict[str, int | float | str] = {}
    epochs: int = Field(default=30, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    batch_size: int = Field(default=16, ge=1)
    sample: int = 64
    patience: int = Field(default=8, ge=1)
    class_weights: Literal["none", "sqrt", "effective", "inverse"] = "none"
    loss: str | None = None
    levels: Literal["none", "plain", "refined"] = "none"
    augment: bool = True

    @model_validator(mode="after")
    def _known(self) -> Network:
        try:
            networks.options(self.name, preset=self.preset, **self.options)
            if self.loss is not None:
                Loss.read(self.loss)
        except ArtefactError as error:
            raise ValueError(str(error)) from error
        return self


class Boosting(_Part):
    """The XGBoost baseline; see `model.boost`."""

    rounds: int = Field(default=200, ge=1)
    max_depth: int = Field(default=6, ge=1)
    learning_rate: float = Field(default=0.1, gt=0)


class NewArea(_Part):
    """An area to map with the network."""

    area: str | tuple[float, float, float, float]
    year: int | None = None


class Study(_Part):
    """One study; with `simulate` its archive is simulated first."""

    name: str
    seed: int = 0
    simulate: Simulation | None = None
    provider: str = "earth-search"
    recipe: Recipe
    zones: Zones
    labels: Labels
    split: SplitChoice = SplitChoice()
    network: Network = Network()
    boost: Boosting = Boosting()
    map: NewArea | None = None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"'{name}': use letters, digits, - and _")
        return name

    @field_validator("recipe")
    @classmethod
    def _fits_models(cls, recipe: Recipe) -> Recipe:
        # Known before anything is searched, not after hours of building.
        require_periods(recipe)
        return recipe


def read_study(path: str | Path) -> Study:
    """Read a study file.

    Raises
    ------
    StudyError
        Naming file and line of the first mistake.
    """
    return read_yaml(path, Study, StudyError)


def resolve(value: Any, study_file: Path, archive: Path | None) -> Any:
    """Return a path of a study: ``archive:…`` in the simulated archive, others as they are.

    A relative path that exists beside the study file means that one; names of providers, URLs and
    boxes pass unchanged.
    """
    if not isinstance(value, str):
        return value
    if value.startswith(ARCHIVE):
        if archive is None:
            raise ValueError(f"'{value}' needs `simulate:` in the study")
        return str(archive / value.removeprefix(ARCHIVE))
    beside = study_file.parent / value
    return str(beside) if "://" not in value and beside.exists() else value
