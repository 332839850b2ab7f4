"""Settings of a Dask Gateway server."""
