"""Is the +1000 of processing baseline 04.00 still in the pixels? What dark surfaces say.

Vegetation and water are dark in visible light: their reflectance is mostly below 0.1, a DN below
1000 on the old scale, and it is never far below 0, a DN of 1000 where ESA's offset is in. The test
lives on that gap. Haze and bright soil close it, so it often says nothing: a scene that stays
undecided costs a question, a wrong answer moves every reflectance by 0.1, unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cube.offset import BOA_OFFSET

#: Vegetation and water, of the scene classification.
DARK_CLASSES = (4, 6)

#: Bands to sample, the darkest over vegetation and water first.
BANDS_BY_DARKNESS = (
    *("red", "blue", "green", "coastal", "rededge1", "swir22", "swir16"),
    *("rededge2", "rededge3", "nir", "nir08", "nir09"),
)

#: Dark pixels needed: 100 pixels of the 20 m classification, of which one is the lowest percent.
ENOUGH = 400
#: Needed to contradict what a catalogue said: a build stops on it.
PLENTY = 1000

#: A quarter of the dark pixels below this is the old scale: with the offset in, their reflectance
#: would be below −0.03, and ESA's target accuracy for a dark surface is 0.005.
OLD_QUARTER = 700
#: For a contradiction: −0.05.
OLD_QUARTER_STRONG = 500
#: No more than 1 % of the dark pixels below this: the offset is in, with ten times that accuracy to
#: spare. On the old scale 99 % of vegetation and water would reflect more than 0.095.
NEW_FLOOR = 950
#: Above this, even the darkest percent is too bright for a surface seen without haze.
NEW_CEILING = 1500
#: The floor must show in one of these: green vegetation under haze reaches it on the old scale.
_TELLING = frozenset({"red", "blue"})

#: 0 − 1000 in unsigned 16 bits is 64536: somebody has subtracted the offset already. Without 65535
#: itself, which also stands for saturation.
UNDERFLOW = (64_000, 65_534)
#: Fewer could be damage.
ENOUGH_UNDERFLOW = 100


@dataclass(frozen=True)
class Levels:
    """DN of one band over dark pixels: its lowest percent, its quarter, share below 1000."""

    percent: int
    quarter: int
    below: float


@dataclass(frozen=True)
class Evidence:
    """What a sample of pixels says.

    Attributes
    ----------
    dark : int
        Vegetation and water pixels with data.
    bands : mapping of str to Levels
        Per sampled band; empty without dark pixels.
    underflow : int
        Values between 64 000 and 65 534, over all classes and bands.
    """

    dark: int
    bands: Mapping[str, Levels]
    underflow: int

    def __str__(self) -> str:
        parts = [f"{self.dark} vegetation and water pixels"]
        for band, found in self.bands.items():
            parts.append(
                f"{band}: 1 % below DN {found.percent}, a quarter below {found.quarter}, "
                f"{found.below:.0%} below 1000"
            )
        if self.underflow:
            parts.append(f"{self.underflow} values from an unsigned underflow")
        return "; ".join(parts)


def gather(scl: np.ndarray, bands: Mapping[str, np.ndarray]) -> Evidence:
    """Return the evidence of a sample.

    Parameters
    ----------
    scl : ndarray of uint8
        Scene classification, of any shape.
    bands : mapping of str to ndarray of uint16
        Common name to stored DN of the same pixels (nothing subtracted); 0 is no data.
    """
    values = np.stack([np.ravel(dn) for dn in bands.values()])
    low, high = UNDERFLOW
    underflow = int(((values >= low) & (values <= high)).sum())
    usable = np.isin(np.ravel(scl), DARK_CLASSES) & ((values > 0) & (values < low)).all(axis=0)
    if not usable.any():
        return Evidence(dark=0, bands={}, underflow=underflow)
    levels = {}
    for band, dn in zip(bands, values[:, usable], strict=True):
        percent, quarter = np.percentile(dn, (1, 25), method="lower")
        levels[band] = Levels(int(percent), int(quarter), float((dn < BOA_OFFSET).mean()))
    return Evidence(dark=int(usable.sum()), bands=levels, underflow=underflow)


def verdict(evidence: Evidence) -> int | None:
    """Return the DN to subtract, 0 or 1000; None where the pixels do not tell.

    0 where a quarter of the dark pixels is too low, in any band, for a scale that begins at 1000,
    or where unsigned underflow shows that it was subtracted. 1000 where every band, red or blue
    among them, begins at 1000. None for too few pixels, for what lies between, and where both hold.
    """
    old, new = _old(evidence, ENOUGH, OLD_QUARTER), _new(evidence, ENOUGH)
    if old == new:
        return None
    return 0 if old else BOA_OFFSET


def contradicts(subtract: int, evidence: Evidence) -> str | None:
    """Return what speaks strongly against subtracting `subtract` DN (0 or 1000), in words.

    Stricter than `verdict`, because a catalogue's word stands against it: more pixels, a wider gap
    and, to say that an offset is left, red and blue both.
    """
    if subtract == BOA_OFFSET and _old(evidence, PLENTY, OLD_QUARTER_STRONG):
        return f"{BOA_OFFSET} would be subtracted, but the pixels lie on the old scale ({evidence})"
    both = evidence.bands.keys() >= _TELLING
    if subtract == 0 and both and _new(evidence, PLENTY) and not evidence.underflow:
        return f"nothing would be subtracted, but the pixels still carry +1000 ({evidence})"
    return None


def _old(evidence: Evidence, enough: int, quarter: int) -> bool:
    dark = evidence.dark >= enough and any(
        found.quarter < quarter for found in evidence.bands.values()
    )
    return dark or evidence.underflow >= ENOUGH_UNDERFLOW


def _new(evidence: Evidence, enough: int) -> bool:
    return (
        evidence.dark >= enough
        and not _TELLING.isdisjoint(evidence.bands)
        and all(found.percent >= NEW_FLOOR for found in evidence.bands.values())
        and min(found.percent for found in evidence.bands.values()) <= NEW_CEILING
    )
