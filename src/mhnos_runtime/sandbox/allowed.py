"""What the operator allows a server to start, as data, and the confined plan made of a server's choice.

Pure, with the standard library alone: the supervisor uses it, so that no message of a server can make a
program less confined than the operator's policy. Knows no channel and no descriptor.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mhnos_runtime.errors import MhnosError, Refused
from mhnos_runtime.launch import FORBIDDEN_PLAN, MAX_HANDED, Choice, LaunchPlan
from mhnos_runtime.sandbox.plan import Sandbox, confine, directory, outside
from mhnos_runtime.sandbox.policy import narrow


@dataclass(frozen=True, slots=True)
class Allowed:
    """sandbox: the operator's policy, which a choice can narrow, and the means to enforce it. engines_dir:
    contains installed engines as NAME/VERSION. processes: how many may run at a time. The others are limits
    of one plan."""

    sandbox: Sandbox
    engines_dir: str
    processes: int
    retention_bytes: int
    stall_ms: int
    grace_ms: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Allowed:
        return cls(**{**data, "sandbox": Sandbox.from_dict(data["sandbox"])})

    def confined(self, plan: LaunchPlan, handed_sockets: bool) -> LaunchPlan:
        """The plan with its confinement: user, namespaces, filter, limits.

        handed_sockets: whether the program gets sockets of the machine's network. A wish for more than the
        policy gets what the policy has. Raises Refused (forbidden-plan).
        """
        self.check(plan)
        try:
            policy = narrow(self.sandbox.policy, plan.choice.wish)
        except MhnosError as error:
            raise forbidden(error.message) from error
        sandbox = replace(self.sandbox, engines=plan.choice.engines)
        confinement, rlimits = confine(sandbox, policy, plan.choice.cwd, handed_sockets=handed_sockets)
        return replace(plan, confine=confinement, rlimits=rlimits)

    def within(self, plan: LaunchPlan, host: LaunchPlan, handed_sockets: bool) -> LaunchPlan:
        """The plan with the confinement, limits and environment of the process that it is within.

        host: the plan of that process, as `LaunchPlan.after_start` keeps it. Raises Refused (forbidden-plan),
        also for a socket of the machine's network where that process is in another one.
        """
        self.check(plan)
        if plan.choice != Choice(cwd=plan.choice.cwd):
            raise forbidden("it is within another process, and chooses a network, limits or engines")
        policy = narrow(self.sandbox.policy, host.choice.wish)
        if handed_sockets and not outside(policy):
            raise forbidden("it gets a socket of another network than that of the process that it is within")
        confinement = replace(host.confine, directory=directory(policy, plan.choice.cwd))
        return replace(plan, env={**host.env, **plan.env}, confine=confinement, rlimits=host.rlimits)

    def check(self, plan: LaunchPlan) -> None:
        """Raises Refused (forbidden-plan) for a plan that is forbidden, however confined."""
        reason = self.refuses(plan)
        if reason:
            raise forbidden(reason)

    def refuses(self, plan: LaunchPlan) -> str:
        """Why this plan is forbidden, however confined, or ""."""
        checks = {
            "the working directory is not a path in the workspace": _is_path(plan.choice.cwd),
            "a folder to read is not that of an engine": all(map(self.is_engine, plan.choice.engines)),
            f"it keeps {plan.retention_bytes} bytes of output, {self.retention_bytes} are allowed": (
                0 <= plan.retention_bytes <= self.retention_bytes
            ),
            f"viewers may block it for {plan.stall_ms} ms, {self.stall_ms} are allowed": (
                0 <= plan.stall_ms <= self.stall_ms
            ),
            f"SIGKILL does not follow within {self.grace_ms} ms after a signal to end": (
                self._ends(plan.escalation)
            ),
            f"it gets {plan.handed} descriptors, {MAX_HANDED} are allowed": (0 <= plan.handed <= MAX_HANDED),
        }
        return next((reason for reason, holds in checks.items() if not holds), "")

    def is_engine(self, folder: str) -> bool:
        """Whether the folder is that of an engine: ENGINES_DIR/NAME/VERSION."""
        start = self.engines_dir.rstrip("/") + "/"
        names = folder.removeprefix(start).split("/")
        return folder.startswith(start) and len(names) == 2 and all(map(_is_name, names))

    def _ends(self, escalation: tuple[tuple[int, int], ...]) -> bool:
        in_time = all(0 <= delay_ms <= self.grace_ms for delay_ms, _number in escalation)
        return in_time and any(number == signal.SIGKILL for _delay_ms, number in escalation)


def forbidden(reason: str) -> Refused:
    return Refused(
        f"the operator's policy forbids this plan: {reason}",
        code=FORBIDDEN_PLAN,
        hint="the server has a defect or was taken over: read its log, then restart it",
    )


def _is_name(text: str) -> bool:
    return text not in ("", ".", "..") and "\0" not in text


def _is_path(path: str) -> bool:
    return path.startswith("/") and all(map(_is_name, filter(None, path.split("/"))))
