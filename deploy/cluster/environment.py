"""Environment variables of workers: GDAL's settings, and no secrets.

GDAL reads its settings and registers its drivers when it is first imported, so they have to be
there before the process starts: code that runs on a worker comes too late.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cube.errors import ClusterError, redact

#: Settings of GDAL on every worker; the reason for each beside it.
GDAL: Mapping[str, str] = {
    # Listing the folder of every file costs a request each, and buckets refuse it.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # Neighbouring blocks in one request.
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    # GDAL does not try again by itself.
    "GDAL_HTTP_MAX_RETRY": "10",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    # A server that accepts and never answers would hold the worker for ever.
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    # A file named .tif may be a VRT that points at files of the worker.
    "GDAL_SKIP": "VRT,WMS,WCS,HTTP,STACIT,STACTA,GTI,PDF,DERIVED",
}

_SECRET_NAME = re.compile(r"(?i)secret|token|passw|credential|access_key|(^|_)(sas|auth)(_|$)")


def worker_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return GDAL's settings with those given on top.

    Raises
    ------
    ClusterError
        For ``GDAL_NUM_THREADS``: with it GDAL 3.10 gives up on a 503 without trying again.
    """
    if "GDAL_NUM_THREADS" in given:
        raise ClusterError(
            "env: GDAL_NUM_THREADS makes GDAL 3.10 drop its HTTP retries; leave it out, tiles are "
            "read in parallel anyway"
        )
    return {**GDAL, **{name: str(value) for name, value in given.items()}}


def require_no_secrets(env: Mapping[str, str], kept_in: str) -> None:
    """Refuse variables that look like secrets where they would be stored.

    Raises
    ------
    ClusterError
        Naming the variables, never their values.
    """
    found = [
        name
        for name, value in env.items()
        if _SECRET_NAME.search(name) or redact(str(value)) != str(value)
    ]
    if found:
        raise ClusterError(
            f"env: {', '.join(sorted(found))} looks like a secret, and {kept_in}; give the workers "
            "a service account or an instance role instead"
        )
