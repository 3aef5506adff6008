"""Makes the runtime believe that Landlock is of ABI 5, as before Linux 6.12. Put on PYTHONPATH by tests."""

from __future__ import annotations

from mhnos_runtime.sandbox import probe

probe.landlock_abi = lambda: 5
