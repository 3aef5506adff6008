"""Host facts, the operator's policy, and the confinement made of them. Pure, except probe and cgroups."""

from mhnos_runtime.launch import Wish
from mhnos_runtime.sandbox.allowed import Allowed
from mhnos_runtime.sandbox.facts import Fact, HostFacts
from mhnos_runtime.sandbox.plan import (
    Isolation,
    Sandbox,
    View,
    confine,
    describe,
    places,
    reaches_abstract_sockets,
    view,
    visible,
)
from mhnos_runtime.sandbox.policy import LEVELS, NETWORKS, Policy, narrow

__all__ = [
    "LEVELS",
    "NETWORKS",
    "Allowed",
    "Fact",
    "HostFacts",
    "Isolation",
    "Policy",
    "Sandbox",
    "View",
    "Wish",
    "confine",
    "describe",
    "narrow",
    "places",
    "reaches_abstract_sockets",
    "view",
    "visible",
]
