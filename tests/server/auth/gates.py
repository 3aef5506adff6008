"""A gate over plain facts, with doubles for its settings, its token and its clock."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from mhnos_runtime.observe.limit import Limiter
from mhnos_runtime.server.auth.gate import Gate, Outcome, RequestFacts
from mhnos_runtime.server.auth.grants import EVERYTHING, Grant
from mhnos_runtime.server.auth.refusals import Refusal

TOKEN = "t" * 43
PORT = 18790
HOST = f"localhost:{PORT}"


@dataclass(frozen=True)
class Setting:
    """The part of the settings that the gate looks at."""

    host: str = "127.0.0.1"
    auth: str = "token"
    allow_origin: tuple[str, ...] = ()
    allow_host: tuple[str, ...] = ()


class OneToken:
    """All tokens, without a file: counts how often it was asked."""

    in_force = True

    def __init__(self) -> None:
        self.asked = 0

    def find(self, candidate: str) -> Grant | None:
        self.asked += 1
        return EVERYTHING if candidate == TOKEN else None


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def gate(
    setting: Setting | None = None,
    tokens: OneToken | None = None,
    clock: Clock | None = None,
    port: int = PORT,
) -> Gate:
    now = clock or Clock()
    return Gate(setting or Setting(), port, tokens or OneToken(), now, Limiter(now))


def facts(**changes: object) -> RequestFacts:
    """A request that is let in, but for the changes."""
    right = RequestFacts(
        remote_address="127.0.0.1",
        local_address="127.0.0.1",
        hosts=(HOST,),
        query_tokens=(TOKEN,),
    )
    return dataclasses.replace(right, **changes)  # type: ignore[arg-type]


def outcome(answer: Outcome) -> tuple[int, str]:
    return LET_IN if isinstance(answer, Grant) else (answer.status, answer.code)


def refusal(answer: Outcome) -> Refusal:
    """What must be one."""
    assert isinstance(answer, Refusal)
    return answer


LET_IN = (200, "")
NO_TOKEN = (401, "unauthorized")
NO_ORIGIN = (403, "forbidden-origin")
NO_HOST = (421, "forbidden-host")
BAD_HOST = (400, "forbidden-host")
LIMITED = (429, "rate-limited")
WRONG = facts(query_tokens=("x",))
