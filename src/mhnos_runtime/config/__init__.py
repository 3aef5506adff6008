"""Frozen settings from flags, MHNOS_* variables and a TOML file. Standard library only, since the command
that becomes the supervisor imports it. Knows nothing of who reads which setting."""

from mhnos_runtime.config.kinds import BUILT_IN_KINDS, KindSetting
from mhnos_runtime.config.places import check_workspace, ensure_state_dir, prepare_workspace
from mhnos_runtime.config.sources import config_files, find, load, load_again
from mhnos_runtime.config.table import SETTINGS, Setting, SettingRow, Settings, describe, docs_table
from mhnos_runtime.config.values import show_size
from mhnos_runtime.errors import ConfigError

__all__ = [
    "BUILT_IN_KINDS",
    "SETTINGS",
    "ConfigError",
    "KindSetting",
    "Setting",
    "SettingRow",
    "Settings",
    "check_workspace",
    "config_files",
    "describe",
    "docs_table",
    "ensure_state_dir",
    "find",
    "load",
    "load_again",
    "prepare_workspace",
    "show_size",
]
