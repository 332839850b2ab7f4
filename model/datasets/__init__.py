"""Data sets as `model.sampleset.SampleSet`: points, cubes, parcels, and published layouts."""
