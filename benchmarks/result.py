"""What a benchmark gives back: figures a peer, and the demands on them. Does not know how they were made."""

import operator
from dataclasses import asdict, dataclass, field
from typing import Any

_COMPARE = {"<=": operator.le, ">=": operator.ge, "<": operator.lt}


@dataclass(frozen=True)
class Check:
    """A demand on a ratio or a value; `value` is None when it could not be measured."""

    text: str
    value: float | None
    compare: str
    limit: float
    unit: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "pass" if _COMPARE[self.compare](self.value, self.limit) else "FAIL"


@dataclass
class Figure:
    """One row: a value for each peer, in one unit."""

    name: str
    unit: str
    values: dict[str, float]
    checks: list[Check] = field(default_factory=list)
    note: str = ""

    def ratio(self, peer: str, other: str) -> float | None:
        if peer not in self.values or not self.values.get(other):
            return None
        return self.values[peer] / self.values[other]

    def demand(self, text: str, value: float | None, compare: str, limit: float, unit: str = "") -> None:
        self.checks.append(Check(text, value, compare, limit, unit))

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "checks": [{**asdict(check), "verdict": check.verdict} for check in self.checks],
        }
