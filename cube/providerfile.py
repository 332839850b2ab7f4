"""A catalogue that the package does not know, described by its user in a short YAML file.

```yaml
name: our-archive
root: https://stac.example.org/v1
collection: sentinel-2-l2a
assets: {blue: B02, green: B03, red: B04, nir: B08, scl: SCL}
rule: baseline
hosts: [files.example.org]
```
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from cube.errors import SearchError
from cube.offset import Rule
from cube.providers import COMMON_NAMES, ESA_NAMES, PROVIDERS, Provider
from cube.yamlfile import read_yaml

_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,39}$")
_HOST = re.compile(r"^(https?://)?[A-Za-z0-9.-]+(:\d{1,5})?$")


class ProviderFile(BaseModel):
    """What the file holds.

    Attributes
    ----------
    name : str
        Short name, for messages and plans.
    root, collection : str
        STAC API and collection.
    assets : {"common", "esa"} or dict of str to str
        Asset keys: ``common`` (blue, …, scl), ``esa`` (B02, …, SCL), or common name → key with at
        least ``scl`` and the bands to be used.
    rule : str
        How the offset of baseline 04.00 is decided: a rule of `cube.offset.decide`; ``pixels``
        believes no metadata and looks at every scene when planning.
    hosts : tuple of str
        Servers whose files may be opened: ``files.example.org`` (over https), or with scheme and
        port. Nothing else is opened, whatever the items say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    root: str
    collection: str
    assets: Literal["common", "esa"] | dict[str, str]
    rule: Rule
    hosts: tuple[str, ...]

    @field_validator("name")
    @classmethod
    def _short_and_new(cls, name: str) -> str:
        if not _NAME.match(name) or name in PROVIDERS:
            raise ValueError(
                f"'{name}' is taken or not made of small letters, digits and '-' (40 at most)"
            )
        return name

    @field_validator("root")
    @classmethod
    def _url(cls, root: str) -> str:
        if not root.startswith(("https://", "http://")) or "@" in root:
            raise ValueError(f"'{root}' is not the URL of a STAC API (https://host/path)")
        return root.rstrip("/")

    @field_validator("assets")
    @classmethod
    def _known_bands(cls, assets: str | dict[str, str]) -> str | dict[str, str]:
        if isinstance(assets, dict):
            unknown = sorted(assets.keys() - ESA_NAMES.keys())
            if unknown or "scl" not in assets:
                wrong = f"unknown: {', '.join(unknown)}" if unknown else "scl is missing"
                raise ValueError(f"{wrong}; the names are {', '.join(ESA_NAMES)}")
        return assets

    @field_validator("hosts")
    @classmethod
    def _servers(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [host for host in hosts if not _HOST.match(host)]
        if wrong or not hosts:
            raise ValueError(f"{wrong or 'no host'}: write files.example.org or http://host:8000")
        return tuple(host if "://" in host else f"https://{host}" for host in hosts)

    @property
    def provider(self) -> Provider:
        """The entry that the file describes."""
        named = {"common": COMMON_NAMES, "esa": ESA_NAMES}
        return Provider(
            style=self.name,
            root=self.root,
            collection=self.collection,
            assets=self.assets if isinstance(self.assets, dict) else named[self.assets],
            rule=self.rule,
            hosts=frozenset(),
            jpeg2000=True,
            origins=self.hosts,
        )


def read_provider(path: str | Path) -> Provider:
    """Read a provider file.

    Raises
    ------
    SearchError
        If the file is missing, has an unknown key or a wrong value; the message names the line.
    """
    return read_yaml(path, ProviderFile, SearchError).provider
