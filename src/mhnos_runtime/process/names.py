"""Names of processes: which texts may be one. Knows no process."""

from __future__ import annotations

import re

from mhnos_runtime.bounds import NAME_CHARACTERS
from mhnos_runtime.errors import InvalidRequest

#: As a label of a host name (RFC 1123, 2.1), which a preview makes of it, and never a pid.
_FORM = re.compile(rf"(?![0-9]*\Z)(?!.{{{NAME_CHARACTERS + 1}}})[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_SHOWN_CHARACTERS = NAME_CHARACTERS


def check(name: str) -> None:
    """Raises InvalidRequest for a text that is no name."""
    if _FORM.fullmatch(name) is None:
        raise InvalidRequest(
            f"name: {name[:_SHOWN_CHARACTERS]!r} is not allowed; expected 1 to {NAME_CHARACTERS} of a-z, 0-9 "
            "and -, no - at either end, and not digits alone",
            hint="without a name, a process is called by its pid",
        )
