"""Distances between sets against geodesics, and refusals that name the groups."""

from dataclasses import replace

import numpy as np
import pytest
from pyproj import Geod

from cube.errors import SplitError
from model.leakage import audit, audit_set
from model.sampleset import SampleSet
from model.splits import Split, split_zones
from tests.model.farm import Farm
from tests.model.test_sampleset import SPLIT, seasons


def placed() -> SampleSet:
    samples = seasons()
    random = np.random.default_rng(2)
    lonlat = np.array([4.0, 44.0]) + samples.group[:, None] * [0.1, 0.02]
    return replace(samples, lonlat=lonlat + random.uniform(0, 0.05, (len(samples), 2)))


def test_samples_are_as_far_apart_as_on_the_ellipsoid() -> None:
    samples = placed()
    found = audit_set(SPLIT, samples)
    one = samples.lonlat[np.isin(samples.group, sorted(SPLIT.train))]
    other = samples.lonlat[samples.group == 6]
    lon, lat = (np.meshgrid(one[:, i], other[:, i]) for i in range(2))
    _, _, metres = Geod(ellps="WGS84").inv(lon[0], lat[0], lon[1], lat[1])
    assert found.train_test == pytest.approx(metres.min(), rel=0.005)
    assert found.val_test < found.train_test


def test_a_buffer_refuses_what_is_closer_and_names_it() -> None:
    samples = placed()
    found = audit_set(SPLIT, samples)
    nearest = min(found.train_test, found.train_val, found.val_test)
    assert audit_set(SPLIT, samples, nearest - 1).buffer == nearest - 1
    with pytest.raises(SplitError, match=r"zone 4 of train within .* of val"):
        audit_set(SPLIT, samples, found.train_val + 1)
    with pytest.raises(SplitError, match="no coordinates"):
        audit_set(SPLIT, seasons(), 100)


def test_parcels_in_two_sets_are_counted() -> None:
    samples = placed()
    parcel = np.arange(1, len(samples) + 1).astype(np.int32)
    parcel[samples.group == 6] = parcel[samples.group == 5]
    shared = audit_set(SPLIT, replace(samples, parcel=parcel)).shared_parcels
    assert shared == (samples.group == 6).sum()
    assert audit_set(SPLIT, replace(samples, parcel=np.zeros_like(parcel))).shared_parcels == 0


def test_a_group_in_two_sets_is_a_leak() -> None:
    twice = Split("zone", frozenset({1, 2}), frozenset({3}), frozenset({2}))
    with pytest.raises(SplitError, match="both train and test"):
        audit_set(twice, seasons())


def test_zones_closer_than_the_buffer_are_refused(farm: Farm) -> None:
    split = split_zones(farm.labels)
    found = audit(split, farm.labels)
    nearest = min(found.train_test, found.val_test, found.train_val)
    assert audit(split, farm.labels, nearest).train_test == found.train_test
    with pytest.raises(SplitError, match="closer than the buffer"):
        audit(split, farm.labels, nearest + 1)
