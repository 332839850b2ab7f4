"""Certificates for the compose file's cluster: ``python -m deploy.docker.certificates FOLDER``.

One self-signed pair that scheduler, workers and client share: who has the key belongs to the
cluster, and nobody else can talk to it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from distributed.security import Security


def write_certificates(folder: Path) -> None:
    """Write ``ca.pem``, ``cert.pem`` and ``key.pem``, unless they are there."""
    if (folder / "key.pem").exists():
        return
    made = Security.temporary()
    # The key last: it says that all are there.
    for name, text in (
        ("ca.pem", made.tls_ca_file),
        ("cert.pem", made.tls_client_cert),
        ("key.pem", made.tls_client_key),
    ):
        partial = folder / f"{name}.partial"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        partial.replace(folder / name)


if __name__ == "__main__":
    write_certificates(Path(sys.argv[1]))
