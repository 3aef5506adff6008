"""What the operator lets a server start, as data, and the plan that follows from what a server has chosen.

Pure, and on the standard library alone: the supervisor decides by it, so that nothing that a server sends can
make a program less confined than the operator's policy does. Knows no channel and no descriptor.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mhnos_runtime.errors import MhnosError, Refused
from mhnos_runtime.launch import FORBIDDEN_PLAN, MAX_HANDED, LaunchPlan
from mhnos_runtime.sandbox.plan import Sandbox, confine
from mhnos_runtime.sandbox.policy import narrow


@dataclass(frozen=True, slots=True)
class Allowed:
    """sandbox: the operator's policy, which a choice can narrow, and what it is enforced with. engines_dir:
    installed engines lie in its folders' folders. The others are the most that one plan may have;
    processes: how many may run at a time."""

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
        """The plan with all that its program is kept from: user, namespaces, filter, limits.

        handed_sockets: whether it is handed sockets of the machine's network. What was wished to be wider
        than the policy is as the policy has it. Raises Refused (forbidden-plan).
        """
        self.check(plan)
        try:
            policy = narrow(self.sandbox.policy, plan.choice.wish)
        except MhnosError as error:
            raise forbidden(error.message) from error
        sandbox = replace(self.sandbox, engines=plan.choice.engines)
        confinement, rlimits = confine(sandbox, policy, plan.choice.cwd, handed_sockets=handed_sockets)
        return replace(plan, confine=confinement, rlimits=rlimits)

    def check(self, plan: LaunchPlan) -> None:
        """Raises Refused (forbidden-plan) for a plan that no confinement would make allowed."""
        reason = self.refuses(plan)
        if reason:
            raise forbidden(reason)

    def refuses(self, plan: LaunchPlan) -> str:
        """Why no confinement would make this plan allowed, or ""."""
        checks = {
            "the working directory is no path in the workspace": _is_path(plan.choice.cwd),
            "a folder to read is no installed engine's": all(map(self.is_engine, plan.choice.engines)),
            f"{plan.retention_bytes} bytes of output are to be kept, {self.retention_bytes} are allowed": (
                0 <= plan.retention_bytes <= self.retention_bytes
            ),
            f"it may be held up for {plan.stall_ms} ms, {self.stall_ms} are allowed": (
                0 <= plan.stall_ms <= self.stall_ms
            ),
            f"it is not to be killed within {self.grace_ms} ms after it was asked to end": (
                self._ends(plan.escalation)
            ),
            f"{plan.handed} descriptors are to be handed to it, {MAX_HANDED} are allowed": (
                0 <= plan.handed <= MAX_HANDED
            ),
        }
        return next((reason for reason, holds in checks.items() if not holds), "")

    def is_engine(self, folder: str) -> bool:
        """Whether an engine would be installed in it: ENGINES_DIR/NAME/VERSION."""
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
        hint="a server that asks for it has a defect or was taken over: look at its log, and restart it",
    )


def _is_name(text: str) -> bool:
    return text not in ("", ".", "..") and "\0" not in text


def _is_path(path: str) -> bool:
    return path.startswith("/") and all(map(_is_name, filter(None, path.split("/"))))
