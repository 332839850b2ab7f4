"""What an archive is made of: regions, sizes, dates, bands, and the share of wrong labels."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cube.simulate.crops import BY_CODE
from cube.simulate.table import BAND_NAMES

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class Region(BaseModel):
    """One study region: where it lies, what grows there and when.

    Attributes
    ----------
    name : str
        Name of the nearby town.
    granule, neighbour : str
        MGRS granule that covers the whole region, and one that overlaps a part of it (or None).
    east, north : float
        Centre in metres of the granule's UTM zone.
    season : float
        Days by which spring comes later (or earlier, negative) than at the reference place.
    dryness : float
        0 (moist) to 1 (dry): senescence comes earlier, canopies stay thinner.
    cloudiness : float
        Factor on the monthly share of cloud.
    tilt : dict of str to float
        RPG code → factor on the crop's share.
    """

    model_config = _FROZEN

    name: str
    granule: str
    neighbour: str | None
    east: float
    north: float
    season: float = 0.0
    dryness: float = Field(default=0.0, ge=0, le=1)
    cloudiness: float = Field(default=1.0, ge=0, le=2)
    tilt: dict[str, float] = Field(default_factory=dict)

    @field_validator("tilt")
    @classmethod
    def _known_codes(cls, tilt: dict[str, float]) -> dict[str, float]:
        for code, factor in tilt.items():
            if code not in BY_CODE:
                raise ValueError(f"no crop '{code}' is simulated; known: {', '.join(BY_CODE)}")
            if factor < 0:
                raise ValueError(f"the factor of '{code}' is negative ({factor})")
        return tilt


def _region(
    name: str,
    granules: tuple[str, str],
    centre: tuple[float, float],
    climate: tuple[float, float, float],
    **tilt: float,
) -> Region:
    return Region(
        name=name,
        granule=granules[0],
        neighbour=granules[1],
        east=centre[0],
        north=centre[1],
        season=climate[0],
        dryness=climate[1],
        cloudiness=climate[2],
        tilt=tilt,
    )


#: The eight regions of the reference study (Setaro, Coursimaux, Placier 2025). Chartres, Auch,
#: Colmar and Béziers lie across the border of two MGRS squares, so two granules own a part each;
#: the others lie inside one square, at the rim that a second granule also sees.
FRENCH_REGIONS: tuple[Region, ...] = (
    _region(
        "saint-quentin", ("31UER", "31UDR"), (511200, 5522000), (5, 0.0, 1.05),
        BTN=2.6, PTC=2.6, BTH=1.15, CZH=1.1, PHI=1.5, TRN=0.25, SOJ=0.25, VRC=0.0, BDH=0.1, VRG=0.5,
        LUZ=0.7, PPH=0.7,
    ),
    _region(
        "chartres", ("31UCP", "31UDP"), (400000, 5367400), (2, 0.2, 1.0),
        BTH=1.2, CZH=1.4, ORH=1.3, ORP=1.3, BDH=1.4, VRC=0.0, SOJ=0.3, PPH=0.4, PHI=1.6,
    ),
    _region(
        "vitre", ("30UXU", "30UWU"), (611200, 5331000), (3, 0.0, 1.1),
        MIS=1.7, PPH=1.8, TTH=2.0, BTN=0.3, TRN=0.3, VRC=0.0, BDH=0.0, SOJ=0.2,
    ),
    _region(
        "auch", ("31TBJ", "31TCJ"), (300000, 4835800), (-4, 0.6, 0.85),
        TRN=2.6, SOJ=3.0, BDH=1.8, MIS=1.0, BTN=0.3, PTC=0.3, CZH=0.8, LUZ=1.3, VRC=1.1, VRG=1.2,
        TTH=1.4,
    ),
    _region(
        "carpentras", ("31TFJ", "31TFK"), (664200, 4888600), (-8, 1.0, 0.6),
        VRC=4.0, VRG=5.0, BDH=1.6, BTN=0.0, CZH=0.3, PTC=0.8, BTH=0.5, LUZ=1.4, ORH=0.5,
    ),
    _region(
        "riom", ("31TEL", "31TDL"), (511200, 5081800), (4, 0.4, 0.95),
        MIS=1.4, BTN=1.4, TRN=1.6, PPH=1.3, VRC=0.2, SOJ=0.8, TTH=1.6,
    ),
    _region(
        "colmar", ("32ULU", "32TLT"), (377900, 5300000), (4, 0.3, 1.0),
        MIS=2.4, VRC=1.6, SOJ=1.6, BTN=1.2, CZH=0.5, BDH=0.1, ORP=0.6, TRN=0.5,
    ),
    _region(
        "beziers", ("31TEJ", "31TEH"), (517800, 4800000), (-8, 0.9, 0.55),
        VRC=4.0, VRG=2.0, BDH=3.6, BTH=0.5, BTN=0.2, PTC=0.6, CZH=0.5, LUZ=1.4, ORH=0.7, MIS=0.4,
        TRN=1.1, SOJ=0.5, PPH=0.8,
    ),
)  # fmt: skip


class Settings(BaseModel):
    """Everything that decides an archive: the same settings give the same bytes.

    Attributes
    ----------
    seed : int
        Decides every random draw.
    year : int
        Calendar year of the imagery and of the declarations.
    regions : tuple of Region
        Study regions; default the eight of the reference study.
    zones_per_region : int
        Study zones per region; one of them is the test zone.
    zone_metres, gap_metres : int
        Side of a zone, and the gap between neighbouring zones; multiples of 20 m.
    new_area_metres : int
        Height of the strip south of the zones that no model is trained on.
    revisit_days : float
        Days between acquisitions. Every third comes from an orbit that sees half of the area.
    bands : tuple of str
        Common names of the bands to write.
    mean_parcel_ha : float
        Mean size of a parcel in hectares.
    label_noise : float
        Share of parcels declared with a wrong crop.
    offset_share : float
        Share of acquisitions catalogued in Collection 1, whose pixels still carry the offset of
        +1000 that came with processing baseline 04.00.
    """

    model_config = _FROZEN

    seed: int = Field(default=0, ge=0)
    year: int = Field(default=2023, ge=2022, le=2100)
    regions: tuple[Region, ...] = Field(default=FRENCH_REGIONS, min_length=1)
    zones_per_region: int = Field(default=5, ge=1, le=50)
    zone_metres: int = Field(default=2560, ge=320, le=20_000)
    gap_metres: int = Field(default=640, ge=0, le=5_000)
    new_area_metres: int = Field(default=1280, ge=320, le=20_000)
    revisit_days: float = Field(default=5.0, ge=1, le=30)
    bands: tuple[str, ...] = ("blue", "green", "red", "nir")
    mean_parcel_ha: float = Field(default=1.5, ge=0.3, le=20)
    label_noise: float = Field(default=0.03, ge=0, le=0.5)
    offset_share: float = Field(default=0.4, ge=0, le=1)

    @field_validator("zone_metres", "gap_metres", "new_area_metres")
    @classmethod
    def _whole_scl_pixels(cls, metres: int) -> int:
        if metres % 20:
            raise ValueError(f"{metres} m is not a multiple of 20 m, the pixel of the SCL")
        return metres

    @field_validator("bands")
    @classmethod
    def _known_bands(cls, bands: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [band for band in bands if band not in BAND_NAMES]
        if unknown or not bands or len(set(bands)) < len(bands):
            raise ValueError(f"bands must be distinct and from {', '.join(BAND_NAMES)}")
        return bands

    @model_validator(mode="after")
    def _distinct_regions(self) -> Settings:
        names = [region.name for region in self.regions]
        if len(set(names)) < len(names):
            raise ValueError(f"a region stands twice in {names}")
        return self


def demo_settings(**changes: Any) -> Settings:
    """Return the settings of the demo: three regions, four zones each, a year every six days.

    Saint-Quentin is overlapped by a second granule that owns nothing of it, Auch is owned by two
    granules, Béziers has one. Keyword arguments replace single settings.
    """
    named = {region.name: region for region in FRENCH_REGIONS}
    beziers = named["beziers"].model_copy(update={"neighbour": None, "north": 4_806_400.0})
    fields: dict[str, Any] = {
        "seed": 2023,
        "regions": (named["saint-quentin"], named["auch"], beziers),
        "zones_per_region": 4,
        "zone_metres": 1920,
        "revisit_days": 6.5,
    }
    return Settings(**{**fields, **changes})
