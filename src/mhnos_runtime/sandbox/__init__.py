"""What the host can enforce, what policy asks for, and the confinement that follows. Pure but for the probe."""

from mhnos_runtime.sandbox.facts import Fact, Facts
from mhnos_runtime.sandbox.plan import Sandbox, View, confine
from mhnos_runtime.sandbox.policy import LEVELS, NETWORKS, Policy, Wish, narrow

__all__ = ["LEVELS", "NETWORKS", "Fact", "Facts", "Policy", "Sandbox", "View", "Wish", "confine", "narrow"]
