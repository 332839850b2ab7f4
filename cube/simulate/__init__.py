"""An offline Sentinel-2 archive: farmland, seasons, clouds, files, items and labels.

Simulated: good for tests, demonstrations and comparisons of methods under equal conditions. What a
model scores on it says nothing about its worth in a real field.
"""

from cube.simulate.archive import Archive, simulate
from cube.simulate.settings import FRENCH_REGIONS, Region, Settings, demo_settings

__all__ = ["FRENCH_REGIONS", "Archive", "Region", "Settings", "demo_settings", "simulate"]
