"""README's program runs as it stands, on a simulated archive instead of a catalogue."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from cube.simulate import demo_settings, simulate

README = Path(__file__).parent.parent / "README.md"


def test_the_program_runs(tmp_path, monkeypatch, capsys):
    region = demo_settings().regions[2]
    settings = demo_settings(regions=(region,), zone_metres=640, revisit_days=16, seed=5)
    archive = simulate(tmp_path / "archive", settings)
    shutil.copy(archive.zones, tmp_path / "zones.gpkg")
    shutil.copy(archive.parcels, tmp_path / "rpg.gpkg")
    shutil.copy(archive.new_area, tmp_path / "new_area.geojson")
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert program.count('provider="earth-search"') == 2
    offline = program.replace('"earth-search"', f'"{archive.items}"')
    monkeypatch.chdir(tmp_path)
    exec(compile(offline, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102
    assert "hybrid" in capsys.readouterr().out
    assert list((tmp_path / "maps").glob("*_classes.tif"))


def test_every_command_it_names_exists():
    from deploy.cli import app

    names = {command.callback.__name__ for command in app.registered_commands}
    names |= {group.name or group.typer_instance.info.name for group in app.registered_groups}
    (listed,) = re.findall(r"`cropcube (run \|[^`]*)`", README.read_text())
    assert set(re.findall(r"\w+", listed)) == names
