"""A certificate for localhost that signs itself. Knows openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificate(directory: Path) -> tuple[str, str]:
    """Paths of certificate and key."""
    cert, key = str(directory / "cert.pem"), str(directory / "key.pem")
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = ["openssl", "req", "-x509", *curve, "-keyout", key, "-out", cert, *name]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key
