"""What must come of each attempt at each level, as one table. Knows no server."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: held: must not get out. out: gets out, which docs/threat-model.md says. any: not this level's business, and
#: different from one machine to the next.
Outcome = Literal["held", "out", "any"]
HELD: Outcome = "held"
OUT: Outcome = "out"
ANY: Outcome = "any"


class Attempt(NamedTuple):
    """name: a function of attack.py. The rest: its outcome by level; network "host" where not said."""

    name: str
    strict: Outcome
    relaxed: Outcome
    none: Outcome


#: Levels and networks of the servers that the attempts run on.
WAYS = (
    ("strict", "host"),
    ("strict", "loopback"),
    ("strict", "none"),
    ("relaxed", "host"),
    ("relaxed", "none"),
    ("none", "host"),
)

ATTEMPTS = (
    # Secrets and files of the server
    Attempt("read_token", HELD, HELD, HELD),
    Attempt("list_state", HELD, HELD, HELD),
    Attempt("read_output_of_another", HELD, HELD, HELD),
    Attempt("change_runtime", HELD, HELD, HELD),
    Attempt("read_environment_of_server", HELD, HELD, HELD),
    Attempt("read_memory_of_server", HELD, HELD, HELD),
    Attempt("write_memory_of_supervisor", HELD, HELD, HELD),
    Attempt("read_descriptors_of_supervisor", HELD, HELD, HELD),
    Attempt("read_command_line_of_supervisor", HELD, OUT, OUT),
    Attempt("read_environment_of_another", HELD, HELD, OUT),
    Attempt("write_memory_of_another", HELD, HELD, ANY),
    Attempt("write_memory_of_first_process", HELD, HELD, HELD),
    Attempt("write_memory_of_all", HELD, HELD, ANY),
    Attempt("inherited_descriptors", HELD, HELD, HELD),
    # Files of the host
    Attempt("read_shadow", HELD, HELD, HELD),
    Attempt("list_home_of_root", HELD, HELD, ANY),
    Attempt("list_homes", HELD, HELD, OUT),
    Attempt("list_logs", HELD, HELD, OUT),
    Attempt("list_top", HELD, HELD, OUT),
    Attempt("read_outside", HELD, HELD, OUT),
    Attempt("write_outside", HELD, HELD, OUT),
    Attempt("write_through_symlink", HELD, HELD, OUT),
    Attempt("read_through_hard_link", HELD, HELD, OUT),
    Attempt("read_through_own_root", HELD, HELD, OUT),
    Attempt("read_through_other_roots", HELD, HELD, OUT),
    Attempt("read_through_descriptors_of_others", HELD, HELD, ANY),
    Attempt("open_upwards", HELD, HELD, OUT),
    Attempt("rename_outwards", HELD, HELD, OUT),
    Attempt("truncate_outside", HELD, HELD, OUT),
    Attempt("truncate_by_opening", HELD, HELD, OUT),
    Attempt("change_mode_outside", HELD, OUT, OUT),
    Attempt("look_outside", HELD, OUT, OUT),
    Attempt("watch_outside", HELD, OUT, OUT),
    Attempt("write_system", HELD, HELD, HELD),
    Attempt("write_top", HELD, HELD, HELD),
    Attempt("replace_own_program", HELD, HELD, HELD),
    Attempt("replace_first_program", HELD, HELD, HELD),
    Attempt("bind_mount", HELD, HELD, HELD),
    Attempt("remount_writable", HELD, HELD, HELD),
    Attempt("unmount", HELD, HELD, HELD),
    Attempt("mount_the_new_way", HELD, HELD, HELD),
    Attempt("copy_mount_tree", HELD, HELD, HELD),
    Attempt("make_device", HELD, HELD, HELD),
    Attempt("open_devices", HELD, HELD, ANY),
    Attempt("open_by_handle", HELD, HELD, HELD),
    Attempt("write_kernel_settings", HELD, HELD, HELD),
    Attempt("own_cgroup", HELD, HELD, HELD),
    # Other processes
    Attempt("signal_server", HELD, HELD, HELD),
    Attempt("signal_supervisor", HELD, HELD, HELD),
    Attempt("stop_parent", HELD, HELD, HELD),
    Attempt("signal_another", HELD, HELD, OUT),
    Attempt("trace_supervisor", HELD, HELD, HELD),
    Attempt("seize_another", HELD, HELD, ANY),
    Attempt("read_memory_by_call", HELD, HELD, OUT),
    Attempt("take_descriptor", HELD, HELD, OUT),
    Attempt("count_processes", HELD, OUT, OUT),
    Attempt("join_namespace_of_first", HELD, HELD, HELD),
    Attempt("system_v_memory", HELD, OUT, OUT),
    Attempt("type_into_terminal", HELD, HELD, ANY),
    Attempt("paste_into_console", HELD, HELD, HELD),
    Attempt("limit_another", HELD, HELD, OUT),
    Attempt("pin_another", HELD, HELD, OUT),
    Attempt("reschedule_another", HELD, HELD, OUT),
    Attempt("set_parameters_of_another", HELD, HELD, OUT),
    Attempt("set_attributes_of_another", HELD, HELD, OUT),
    Attempt("renice_another", HELD, HELD, OUT),
    Attempt("renice_group_of_another", HELD, HELD, OUT),
    Attempt("renice_user", HELD, HELD, OUT),
    Attempt("slow_disk_of_another", HELD, HELD, OUT),
    Attempt("slow_disk_of_group_of_another", HELD, HELD, OUT),
    Attempt("slow_disk_of_user", HELD, HELD, OUT),
    Attempt("move_memory_of_another", HELD, HELD, ANY),
    Attempt("move_pages_of_another", HELD, HELD, ANY),
    Attempt("share_core_with_another", HELD, HELD, ANY),
    Attempt("write_process_files_of_another", HELD, HELD, OUT),
    Attempt("open_terminal_of_another", HELD, HELD, OUT),
    Attempt("list_terminals", HELD, HELD, OUT),
    Attempt("read_temporary_file_of_another", HELD, HELD, OUT),
    Attempt("write_temporary_file_of_another", HELD, HELD, OUT),
    Attempt("list_temporary_files_of_another", HELD, HELD, OUT),
    Attempt("read_shared_memory_of_another", HELD, OUT, OUT),
    Attempt("list_shared_memory", HELD, HELD, OUT),
    Attempt("plant_in_home", OUT, OUT, OUT),
    # Privileges
    Attempt("gain_capabilities", HELD, HELD, HELD),
    Attempt("become_root", HELD, HELD, HELD),
    Attempt("change_group", HELD, HELD, HELD),
    Attempt("run_set_user_id_program", HELD, HELD, ANY),
    Attempt("nested_user_namespace", HELD, HELD, ANY),
    Attempt("nested_user_namespace_by_clone", HELD, HELD, ANY),
    Attempt("nested_user_namespace_by_clone3", HELD, HELD, ANY),
    Attempt("nested_mount_namespace", HELD, HELD, HELD),
    Attempt("nested_sandbox", HELD, HELD, ANY),
    Attempt("take_tree", HELD, HELD, ANY),
    Attempt("change_root", HELD, HELD, HELD),
    Attempt("key_to_keyring", HELD, HELD, ANY),
    Attempt("search_keyring", HELD, HELD, ANY),
    Attempt("load_bpf", HELD, HELD, ANY),
    Attempt("ring_without_filter", HELD, HELD, ANY),
    Attempt("measure_kernel", HELD, HELD, ANY),
    Attempt("handle_page_faults", HELD, HELD, ANY),
    Attempt("load_module", HELD, HELD, HELD),
    Attempt("load_kernel", HELD, HELD, HELD),
    Attempt("reboot", HELD, HELD, HELD),
    Attempt("name_host", HELD, HELD, HELD),
    Attempt("set_clock", HELD, HELD, HELD),
    Attempt("read_kernel_log", HELD, HELD, ANY),
    Attempt("port_access", HELD, HELD, HELD),
    Attempt("calls_of_another_architecture", HELD, HELD, ANY),
    Attempt("calls_of_x32", HELD, HELD, ANY),
    Attempt("undo_filter", HELD, HELD, ANY),
    Attempt("undo_no_new_privileges", HELD, HELD, ANY),
    # Network, with the host's; see NETWORK for the narrower ones
    Attempt("reach_server", OUT, OUT, OUT),
    Attempt("use_server_without_token", HELD, HELD, HELD),
    Attempt("listen_beside_server", HELD, HELD, HELD),
    Attempt("reach_host_service", OUT, OUT, OUT),
    Attempt("reach_host_service_by_ipv6", ANY, ANY, ANY),
    Attempt("reach_host_service_by_udp", OUT, OUT, OUT),
    Attempt("reach_outside_address", ANY, ANY, ANY),
    Attempt("reach_metadata", ANY, ANY, ANY),
    Attempt("reach_abstract_socket", HELD, HELD, OUT),
    Attempt("reach_path_socket", HELD, OUT, OUT),
    Attempt("raw_packets", HELD, HELD, HELD),
    Attempt("socket_of_another_family", HELD, HELD, ANY),
    Attempt("hypervisor_socket", HELD, HELD, ANY),
    Attempt("kernel_crypto_socket", HELD, HELD, ANY),
    # Resources
    Attempt("raise_core_limit", HELD, HELD, HELD),
    Attempt("raise_open_files", HELD, HELD, HELD),
    Attempt("exhaust_descriptors", HELD, HELD, HELD),
    Attempt("exhaust_tasks", HELD, HELD, HELD),
    Attempt("write_huge_file", HELD, HELD, HELD),
    Attempt("raise_priority", HELD, HELD, HELD),
    Attempt("real_time", HELD, HELD, HELD),
    Attempt("lock_memory", HELD, HELD, HELD),
    Attempt("exhaust_terminals", HELD, HELD, OUT),
    # Memory that is not mapped, where a control group counts it; see WATCHED for where none does
    Attempt("fill_shared_memory", HELD, HELD, HELD),
    Attempt("fill_temporary_folder", HELD, ANY, ANY),
    Attempt("fill_both_halfway", HELD, ANY, ANY),
    Attempt("fill_device_folder", HELD, HELD, HELD),
    Attempt("fill_memory_file", HELD, HELD, HELD),
    Attempt("fill_memory_files_of_child", HELD, HELD, HELD),
    Attempt("hide_shared_mapping", HELD, HELD, HELD),
    Attempt("leave_shared_memory", HELD, OUT, OUT),
)

#: The same where the supervisor looks itself, since no control group can be used.
WATCHED = (
    Attempt("fill_shared_memory", HELD, OUT, OUT),
    Attempt("fill_temporary_folder", HELD, ANY, ANY),
    Attempt("fill_both_halfway", HELD, ANY, ANY),
    Attempt("fill_device_folder", HELD, HELD, HELD),
    Attempt("fill_memory_file", HELD, HELD, HELD),
    Attempt("fill_memory_files_of_child", HELD, HELD, HELD),
    Attempt("hide_shared_mapping", OUT, OUT, OUT),
)
#: Those whose outcome it decides who counts memory.
OF_MEMORY = frozenset(attempt.name for attempt in WATCHED)

#: What only the host's network leads to: held with any narrower one.
NETWORK = frozenset(
    {
        "reach_server",
        "use_server_without_token",
        "reach_host_service",
        "reach_host_service_by_ipv6",
        "reach_host_service_by_udp",
        "reach_outside_address",
        "reach_metadata",
    }
)


#: Beside those, what a network namespace changes.
_WITH_NETWORK = NETWORK | {
    *("reach_abstract_socket", "reach_path_socket", "raw_packets", "hypervisor_socket"),
    *("socket_of_another_family", "plant_in_home"),
}

#: What a narrower network may change; the rest is tried with the host's only.
WITH_NETWORK = tuple(attempt for attempt in ATTEMPTS if attempt.name in _WITH_NETWORK)


def outcome(attempt: Attempt, level: str, network: str) -> Outcome:
    if network != "host" and attempt.name in NETWORK:
        return HELD
    outcomes: dict[str, Outcome] = attempt._asdict()
    return outcomes[level]
