"""Write the options handler into the Helm overlays: ``python -m deploy.gateway.helm.embed``.

The gateway's server has no cropcube, so its configuration carries the text of
``deploy/gateway/options.py``. A test compares the two.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

HELM = Path(__file__).parent
OVERLAYS = ("values-dask-gateway.yaml", "values-daskhub.yaml")
_BLOCK = re.compile(r"^(?P<indent> *)10-options\.py: \|\n(?:(?P=indent)  .*\n|\n)*", re.MULTILINE)


def embedded(overlay: str, handler: str) -> str:
    """Return an overlay whose block ``10-options.py`` holds the handler."""

    def block(found: re.Match[str]) -> str:
        indent = found["indent"]
        return f"{indent}10-options.py: |\n{textwrap.indent(handler, indent + '  ')}"

    text, count = _BLOCK.subn(block, overlay)
    if count != 1:
        raise ValueError(f"an overlay needs one block 10-options.py, this one has {count}")
    return text


def main() -> None:
    """Rewrite both overlays."""
    handler = (HELM.parent / "options.py").read_text(encoding="utf-8")
    for name in OVERLAYS:
        path = HELM / name
        path.write_text(embedded(path.read_text(encoding="utf-8"), handler), encoding="utf-8")


if __name__ == "__main__":
    main()
