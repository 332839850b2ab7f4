"""The crops that grow in the simulated archive: RPG codes, shares, seasons, habits of their fields.

Seasons are cycles of leaf area; shares are those of France in outline, long-tailed. Field sizes and
the kind of land a crop prefers follow common agronomy: beet and potato on large fields, vines and
orchards on small ones with visible rows, meadows in hedged country.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cycle:
    """One rise and fall of green leaf area.

    Days of the year of steepest rise and fall, the e-folding widths of both in days, the maximum
    leaf area index, and the mean leaf angle in degrees at the height of the cycle.
    """

    start: float
    rise: float
    end: float
    fall: float
    lai: float
    angle: float


@dataclass(frozen=True)
class Crop:
    """A crop as the French register (RPG) and the land know it.

    Attributes
    ----------
    code, group : str
        RPG code and its group of 28.
    share : float
        Share of parcels before the region's tilt.
    base : float
        Leaf area index outside of the cycles.
    cycles : tuple of Cycle
        Seasons of leaf area.
    hectares : float
        Typical field size.
    land : tuple of float
        Affinity to open fields, hedged country and vine slopes.
    rows : float
        Contrast of its rows or tramlines, as a share of leaf area.
    patchy : float
        How much leaf area varies inside a field, 1 = as in a cereal.
    bloom : float
        Added to green and red reflectance at full flower (rapeseed is yellow).
    """

    code: str
    group: str
    share: float
    base: float
    cycles: tuple[Cycle, ...]
    hectares: float
    land: tuple[float, float, float] = (1.0, 0.5, 0.2)
    rows: float = 0.05
    patchy: float = 1.0
    bloom: float = 0.0


def _c(*values: float) -> Cycle:
    return Cycle(*values)


CROPS: tuple[Crop, ...] = (
    Crop("BTH", "1", 0.22, 0.25, (_c(95, 14, 182, 9, 5.5, 62),), 4.0),
    Crop("MIS", "2", 0.16, 0.08, (_c(168, 12, 262, 12, 4.8, 60),), 2.5, (1.0, 1.0, 0.3), 0.08),
    Crop("PPH", "18", 0.11, 1.5, (_c(80, 20, 150, 14, 3.6, 60), _c(205, 25, 290, 30, 2.6, 60)),
         1.0, (0.25, 2.2, 0.6), 0.0, 1.7),
    Crop("ORH", "3", 0.09, 0.25, (_c(86, 14, 163, 8, 5.2, 64),), 3.0),
    Crop("CZH", "5", 0.08, 0.3, (_c(75, 18, 165, 9, 5.2, 50), _c(-60, 20, 20, 25, 1.8, 45)),
         5.0, bloom=0.045),
    Crop("TRN", "6", 0.07, 0.06, (_c(163, 11, 235, 10, 3.6, 42),), 4.0, rows=0.08, bloom=0.012),
    Crop("VRC", "21", 0.05, 0.35, (_c(140, 16, 285, 16, 1.7, 55),), 0.6, (0.15, 0.5, 5.0),
         0.18, 1.2),
    Crop("BTN", "24", 0.05, 0.08, (_c(158, 13, 300, 18, 4.8, 45),), 6.0, (1.2, 0.15, 0.1), 0.07),
    Crop("BDH", "4", 0.05, 0.22, (_c(90, 14, 173, 9, 4.5, 64),), 3.0, (1.0, 0.5, 0.6)),
    Crop("LUZ", "16", 0.035, 0.8, (_c(85, 14, 140, 6, 3.8, 55), _c(160, 8, 190, 6, 3.2, 55),
         _c(205, 8, 240, 6, 2.8, 55)), 2.0, (0.8, 0.9, 0.5), 0.0),
    Crop("ORP", "3", 0.035, 0.08, (_c(112, 11, 183, 9, 4.6, 63),), 3.0),
    Crop("PTC", "25", 0.03, 0.08, (_c(160, 10, 240, 12, 4.4, 48),), 6.0, (1.2, 0.15, 0.1), 0.12),
    Crop("SOJ", "7", 0.03, 0.07, (_c(181, 11, 257, 9, 4.6, 47),), 3.0, rows=0.07),
    Crop("VRG", "20", 0.02, 0.7, (_c(115, 16, 300, 16, 2.6, 52),), 0.9, (0.2, 0.9, 3.0), 0.16, 1.3),
    Crop("TTH", "4", 0.02, 0.25, (_c(98, 14, 190, 10, 5.6, 60),), 1.2, (0.4, 1.6, 0.3)),
    Crop("PHI", "8", 0.02, 0.08, (_c(100, 12, 165, 7, 3.6, 48),), 3.5),
)  # fmt: skip

BY_CODE = {crop.code: crop for crop in CROPS}
