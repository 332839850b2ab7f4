"""Legends: crop codes of a register and year → the classes a model learns.

A legend is data: a table of codes with one column per level of a class tree
(`legends/rpg_to_turkoglu.csv`), and a second one for codes whose meaning changed between years.
Class 0 is always ``background`` (inside the study area, no parcel); 255 is ignored everywhere.
"""

from __future__ import annotations

import colorsys
import difflib
import itertools
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from cube.errors import LabelError

logger = logging.getLogger(__name__)

IGNORE = 255
BACKGROUND = "background"
Level = Literal["level1", "level2", "level3", "level3_fr_ext", "hcat3_name"]

_FOLDER = Path(__file__).parent / "legends"
_SHIPPED = {"turkoglu": "rpg_to_turkoglu.csv"}
_CHANGES = _FOLDER / "rpg_changes.csv"
#: Colours of the crops that maps show most.
_COLOURS = _FOLDER / "colours.csv"
_TREE = ("level1", "level2", "level3", "level3_fr_ext")
#: Declared land that is no crop class, and why; 255 at every level.
_NO_CLASS = {
    "other": "not a determined crop",
    "overseas": "grown overseas only",
    "not_farmland": "not farmed",
    "margin": "a margin narrower than a pixel",
}
#: The register's code list changed with the agricultural policy of 2023.
_NEW_LIST = 2023
_MAX_CLASSES = 255


class Legend(BaseModel):
    """Classes and the codes that lead to them, for one year of the register.

    Attributes
    ----------
    name, level : str
        Where the classes come from: the table and its column.
    year : int
        Year of the register; decides what a code means.
    classes : tuple of str
        Index = label value, 0 to K - 1; ``classes[0]`` is ``background``.
    colours : tuple of str
        ``#rrggbb`` per class; a class keeps its colour when others are left out.
    codes : dict of str to int
        RPG code to class index, or 255.
    reasons : dict of str to str
        Why a code is 255.
    out_of_year : tuple of str
        Codes that were not in use in `year`; they are mapped all the same, and reported.
    names, groups : dict of str to tuple of str
        EuroCrops name, or RPG group, to the codes behind it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    level: str
    year: int
    classes: tuple[str, ...]
    colours: tuple[str, ...]
    codes: dict[str, int]
    reasons: dict[str, str] = {}
    out_of_year: tuple[str, ...] = ()
    names: dict[str, tuple[str, ...]] = {}
    groups: dict[str, tuple[str, ...]] = {}

    @property
    def n_classes(self) -> int:
        """K, background included."""
        return len(self.classes)

    def index(self, name: str) -> int:
        """Return the label value of a class.

        Raises
        ------
        LabelError
            If the legend has no such class.
        """
        if name not in self.classes:
            raise LabelError(_no_class(name, self.classes, self.title))
        return self.classes.index(name)

    @property
    def title(self) -> str:
        """Name, level and year, for messages."""
        return f"{self.name} {self.level} {self.year}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, ready for JSON."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Legend:
        """Return the legend that `to_dict` described.

        Raises
        ------
        LabelError
            If a field is missing, unknown or of the wrong type.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise LabelError(f"legend, {where}: {first['msg']}") from error

    def resolve(
        self, code: str = "", candidates: str = "", name: str = "", group: str = ""
    ) -> tuple[int, str]:
        """Return the class of one parcel and, when it is 255, why.

        A code decides alone. Without one the first statement that is given decides, if all codes
        it may stand for agree on the class; codes of no crop and codes out of year are set aside
        while others remain. Parcels of an ambiguous statement are 255.

        Parameters
        ----------
        code : str
            RPG code, ``BTH``.
        candidates : str
            Possible RPG codes, ``VRC|VRT``.
        name : str
            EuroCrops name, ``winter_common_soft_wheat``.
        group : str
            RPG group, ``21``.
        """
        if code:
            if code not in self.codes:
                return IGNORE, f"unknown code {code}"
            return self.codes[code], self.reasons.get(code, "")
        if self.level == "hcat3_name" and name in self.classes:
            return self.classes.index(name), ""
        statements = (
            tuple(filter(None, candidates.split("|"))),
            self.names.get(name, ()),
            self.groups.get(group, ()),
        )
        for statement in statements:
            if any(code in self.codes for code in statement):
                return self._agreed(statement)
        return IGNORE, f"unknown name {name}" if name else "no code and no name"

    def classify(self, parcels: pd.DataFrame) -> pd.DataFrame:
        """Return the class of every parcel.

        Parameters
        ----------
        parcels : DataFrame
            With text columns ``code`` and, where the register has no code, ``candidates``,
            ``name``, ``group`` (what `model.labels.read_parcels` returns).

        Returns
        -------
        DataFrame
            Same index; ``class`` uint8 (255 = ignore) and ``reason`` str.
        """
        columns = ["code", "candidates", "name", "group"]
        said = parcels.reindex(columns=columns).fillna("").astype(str)
        answer = {row: self.resolve(*row) for row in set(said.itertuples(index=False, name=None))}
        found = [answer[row] for row in said.itertuples(index=False, name=None)]
        return pd.DataFrame(
            {
                "class": np.array([index for index, _ in found], np.uint8),
                "reason": np.array([reason for _, reason in found], object),
            },
            index=parcels.index,
        )

    def restrict(self, classes: Collection[str]) -> Legend:
        """Return the legend with only these classes (and background); the rest becomes 255.

        Raises
        ------
        LabelError
            If a class is not in the legend, or none is left.
        """
        for name in classes:
            self.index(name)
        kept = [c for c in self.classes if c == BACKGROUND or c in classes]
        if len(kept) < 2:
            raise LabelError(f"legend {self.title}: no class is left besides background")
        table = {self.classes.index(c): number for number, c in enumerate(kept)}
        reasons = dict(self.reasons)
        for code, index in self.codes.items():
            if index != IGNORE and index not in table:
                reasons[code] = f"class {self.classes[index]} is not kept"
        return self.model_copy(
            update={
                "classes": tuple(kept),
                "colours": tuple(self.colours[index] for index in table),
                "codes": {code: table.get(index, IGNORE) for code, index in self.codes.items()},
                "reasons": reasons,
            }
        )

    def compact(self, parcels: pd.DataFrame, min_parcels: int = 1) -> Legend:
        """Return the legend with only the classes that at least `min_parcels` parcels have."""
        counts = self.classify(parcels)["class"].value_counts()
        frequent = counts.index[counts >= min_parcels].astype(int)
        return self.restrict([self.classes[index] for index in frequent if index != IGNORE])

    def _agreed(self, codes: Sequence[str]) -> tuple[int, str]:
        known = [code for code in codes if code in self.codes]
        current = [code for code in known if code not in self.out_of_year] or known
        crops = [code for code in current if self.reasons.get(code) not in _NO_CLASS.values()]
        crops = crops or current
        found = {self.codes[code] for code in crops}
        if len(found) == 1:
            return found.pop(), self.reasons.get(crops[0], "")
        may = sorted(self.reasons.get(c) or self.classes[self.codes[c]] for c in crops)
        return IGNORE, f"ambiguous: {' / '.join(dict.fromkeys(may))}"


def flat_legend(name: str, classes: Sequence[str], year: int = 0) -> Legend:
    """Return the legend of a data set that names its classes itself, without codes.

    Parameters
    ----------
    name : str
        Of the data set.
    classes : sequence of str
        In the order of the labels; ``background`` is put in front where it is not there.
    year : int
        Of the labels, where it is known.

    Raises
    ------
    LabelError
        If a class is named twice or there are too many.
    """
    names = [entry for entry in classes if entry != BACKGROUND]
    twice = {entry for entry in names if names.count(entry) > 1}
    if twice or len(names) >= _MAX_CLASSES:
        told = f"twice: {', '.join(sorted(twice))}" if twice else f"{len(names)} classes"
        raise LabelError(f"legend {name}: {told}; each class once, and at most {_MAX_CLASSES - 1}")
    return Legend(
        name=name,
        level="flat",
        year=year,
        classes=(BACKGROUND, *names),
        colours=("#d9d9d9", *_colours(names)),
        codes={},
    )


def load_legend(
    name: str | Path = "turkoglu",
    level: Level = "level3",
    year: int = 2023,
    classes: Collection[str] | None = None,
) -> Legend:
    """Read a legend from its table.

    Parameters
    ----------
    name : str or path
        ``turkoglu`` (the hierarchy of Turkoglu et al. 2021 for RPG codes), or the path of a CSV
        with the columns ``code`` and `level`, and any of ``status``, ``in_rpg_2023``,
        ``hcat3_name``, ``rpg_group`` and the coarser levels.
    level : str
        ``level1`` (5 classes), ``level2``, ``level3`` (ZueriCrop's), ``level3_fr_ext`` (finer,
        for France) or ``hcat3_name`` (EuroCrops' own names).
    year : int
        Year of the register.
    classes : collection of str, optional
        Keep only these; default all.

    Raises
    ------
    LabelError
        If the table or a class does not exist, or the table has a code twice.
    """
    path = _FOLDER / _SHIPPED[str(name)] if str(name) in _SHIPPED else Path(name)
    table = _read_table(path, level)
    if str(name) in _SHIPPED:
        table = _apply_changes(table, year)
    legend = _from_table(table, str(name), level, year)
    return legend if classes is None else legend.restrict(classes)


def parents_table(name: str, level: str, year: int) -> pd.DataFrame | None:
    """Return the levels above the classes of a shipped legend, for `model.hierarchy`.

    Returns
    -------
    DataFrame or None
        Index ``class``; ``level1`` and ``level2``, as far as they are coarser than `level`; empty
        text where a class belongs to none. None for other legends and for the coarsest level.
    """
    if name not in _SHIPPED or level not in _TREE[1:]:
        return None
    table = _apply_changes(_read_table(_FOLDER / _SHIPPED[name], level), year)
    crops = ~table.status.isin(list(_NO_CLASS)) & (table[level] != "")
    coarser = list(_TREE[: min(2, _TREE.index(level))])
    return table[crops].rename(columns={level: "class"}).set_index("class")[coarser]


def _read_table(path: Path, level: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, ValueError) as error:
        known = ", ".join(_SHIPPED)
        raise LabelError(f"no legend '{path}': use {known} or the path of a CSV") from error
    for column in ("code", level):
        if column not in table:
            raise LabelError(
                f"{path}: no column '{column}'; it has {', '.join(table.columns)} "
                f"(levels of the shipped legend: {', '.join(get_args(Level))})"
            )
    twice = sorted(set(table.code[table.code.duplicated()]))
    if twice:
        raise LabelError(f"{path}: code(s) {', '.join(twice)} stand twice; keep one row each")
    return table


def _apply_changes(table: pd.DataFrame, year: int) -> pd.DataFrame:
    changes = pd.read_csv(_CHANGES, dtype=str, keep_default_na=False, encoding="utf-8")
    first = pd.to_numeric(changes.first_year).fillna(0)
    last = pd.to_numeric(changes.last_year).fillna(9999)
    valid = changes[(first <= year) & (year <= last)].set_index("code")
    table = table.set_index("code")
    columns = valid.columns.intersection(table.columns)
    table.loc[valid.index, columns] = valid[columns]
    return table.reset_index()


def _from_table(table: pd.DataFrame, name: str, level: str, year: int) -> Legend:
    status = table.get("status", pd.Series("crop", index=table.index))
    usable = ~status.isin(list(_NO_CLASS)) & (table[level] != "")
    # Siblings stand side by side: sorted by the levels above, then by name.
    above = [c for c in _TREE[: _TREE.index(level)] if c in table] if level in _TREE else []
    rows = table[usable].sort_values([*above, level])
    names = list(dict.fromkeys(rows[level]))
    if len(names) >= _MAX_CLASSES:
        raise LabelError(f"legend {name}: {len(names)} classes, at most {_MAX_CLASSES - 1} fit")
    number = {class_name: index for index, class_name in enumerate([BACKGROUND, *names])}
    codes, reasons = {}, {}
    for code, state, target, good in zip(table.code, status, table[level], usable, strict=True):
        codes[code] = number[target] if good else IGNORE
        if not good:
            reasons[code] = _NO_CLASS.get(state, f"no class at {level}")
    return Legend(
        name=name,
        level=level,
        year=year,
        classes=tuple(number),
        colours=("#d9d9d9", *_colours(names)),
        codes=codes,
        reasons=reasons,
        out_of_year=_out_of_year(table, year),
        names=_codes_by(table, "hcat3_name"),
        groups=_codes_by(table, "rpg_group"),
    )


def _out_of_year(table: pd.DataFrame, year: int) -> tuple[str, ...]:
    if "in_rpg_2023" not in table:
        return ()
    wrong = "legacy" if year >= _NEW_LIST else "new_2023+"
    return tuple(table.code[table.in_rpg_2023 == wrong])


def _codes_by(table: pd.DataFrame, column: str) -> dict[str, tuple[str, ...]]:
    if column not in table:
        return {}
    grouped = table[table[column] != ""].groupby(column).code
    return {str(key): tuple(codes) for key, codes in grouped}


def _colours(names: Sequence[str]) -> Iterable[str]:
    """Yield a colour per class: its own where the table has one, else one unlike all others."""
    chosen = pd.read_csv(_COLOURS, index_col="class").colour.to_dict()
    taken = ["#d9d9d9", *chosen.values()]
    wheel = _golden_angle()
    for name in names:
        colour = chosen.get(name) or next(c for c in wheel if all(_unlike(c, t) for t in taken))
        taken.append(colour)
        yield colour


def _golden_angle() -> Iterator[str]:
    """Yield colours without end: hues by the golden angle, in turns of three lightnesses."""
    for number in itertools.count():
        hue = number * 0.381966 % 1.0
        lightness = (0.45, 0.62, 0.32)[number % 3]
        saturation = (0.85, 0.60)[number // 3 % 2]
        rgb = colorsys.hls_to_rgb(hue, lightness, saturation)
        yield "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)


def _unlike(one: str, other: str, least: int = 24) -> bool:
    pairs = zip(bytes.fromhex(one[1:]), bytes.fromhex(other[1:]), strict=True)
    return sum(abs(a - b) for a, b in pairs) >= least


def _no_class(name: str, known: Iterable[str], title: str) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else f"; it has {', '.join(known)}"
    return f"legend {title} has no class '{name}'{hint}"
