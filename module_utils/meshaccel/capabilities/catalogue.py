# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""Every capability that can be asked for: its name, its probe, the first kernel with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import accounting, node, programs, traffic
from .programs import CONNECTION, MESSAGE, load
from .session import Session

#: Returns when the node has it; raises Lacking, Undetermined or OSError.
Check = Callable[[Session], None]


@dataclass(frozen=True)
class Probe:
    """One question to the node.

    ``lowest_kernel`` is the first mainline release with the feature, empty where
    the kernel is not what brings it. It is for messages; nothing is decided by it.
    """

    name: str
    lowest_kernel: str
    check: Check


def map_of(attribute: str) -> Check:
    """Returns the probe that creates one of the session's maps."""

    def check(session: Session) -> None:
        getattr(session, attribute)

    return check


PROBES: tuple[Probe, ...] = (
    Probe("bpf_syscall", "4.4", node.check_system_call),
    Probe("libbpf", "", node.check_libbpf),
    Probe("kernel_btf", "5.4", node.check_kernel_btf),
    Probe("bpffs", "4.4", node.check_bpffs),
    Probe("cgroup2", "4.5", node.check_cgroup2),
    Probe("cgroup_link", "5.7", node.check_cgroup_link),
    Probe("map_prog_array", "4.2", map_of("program_array")),
    Probe("map_sockmap", "4.14", map_of("socket_map")),
    Probe("map_sockhash", "4.18", map_of("socket_hash")),
    Probe("map_cgroup_storage", "4.19", map_of("cgroup_storage")),
    Probe("map_sk_storage", "5.2", map_of("socket_storage")),
    Probe("program_sock_ops", "4.13", load(CONNECTION, programs.empty)),
    Probe("program_sk_msg", "4.17", load(MESSAGE, programs.empty)),
    Probe(
        "sock_ops_sock_map_update",
        "4.14",
        load(CONNECTION, programs.enter("socket_map", programs.SOCKET_MAP_UPDATE)),
    ),
    Probe(
        "sock_ops_sock_hash_update",
        "4.18",
        load(CONNECTION, programs.enter("socket_hash", programs.SOCKET_HASH_UPDATE)),
    ),
    Probe("sock_ops_sock_hash_delete", "4.18", load(CONNECTION, programs.socket_hash_delete)),
    Probe("sock_ops_get_socket_cookie", "4.19", load(CONNECTION, programs.get_socket_cookie)),
    Probe("sock_ops_get_local_storage", "4.19", load(CONNECTION, programs.get_local_storage)),
    Probe("sock_ops_sk_storage_get", "5.3", load(CONNECTION, programs.socket_storage_get(CONNECTION))),
    Probe("sock_ops_probe_read_kernel", "5.8", load(CONNECTION, programs.probe_read_kernel)),
    Probe("sock_ops_skc_to_tcp_sock", "5.10", load(CONNECTION, programs.to_tcp_socket(CONNECTION))),
    Probe("sk_msg_tail_call", "4.17", load(MESSAGE, programs.tail_call)),
    Probe("sk_msg_redirect_map", "4.17", load(MESSAGE, programs.redirect_map)),
    Probe("sk_msg_redirect_hash", "4.18", load(MESSAGE, programs.redirect_hash)),
    Probe("sk_msg_sk_storage_get", "5.8", load(MESSAGE, programs.socket_storage_get(MESSAGE))),
    Probe("sk_msg_probe_read_kernel", "5.8", load(MESSAGE, programs.probe_read_kernel)),
    Probe("sk_msg_skc_to_tcp_sock", "5.10", load(MESSAGE, programs.to_tcp_socket(MESSAGE))),
    Probe("sk_msg_rdonly_cast", "6.2", load(MESSAGE, programs.readonly_cast)),
    Probe("sk_msg_cast_to_kern_ctx", "6.2", load(MESSAGE, programs.cast_to_kernel_context)),
    Probe("sockmap_iterator", "5.11", programs.load_socket_map_iterator),
    Probe("map_hash", "3.19", traffic.map_of(traffic.HASH, key_size=8)),
    Probe("map_lpm_trie", "4.11", traffic.map_of(traffic.LPM_TRIE, key_size=8)),
    Probe("map_lru_hash", "4.10", traffic.map_of(traffic.LRU_HASH, key_size=8, flags=0)),
    Probe("map_percpu_array", "4.6", traffic.map_of(traffic.PER_CPU_ARRAY, key_size=4, flags=0)),
    Probe("program_sched_cls", "4.1", traffic.load(traffic.empty)),
    Probe("sched_cls_fib_lookup", "4.18", traffic.load(traffic.fib_lookup)),
    Probe("sched_cls_redirect_neigh", "5.10", traffic.load(traffic.redirect_neighbour)),
    Probe("sched_cls_ktime_get_coarse_ns", "5.11", traffic.load(traffic.coarse_time)),
    Probe("sched_cls_timer", "5.15", traffic.check_timer),
    Probe("ipvs", "", traffic.check_ipvs),
    # In stable releases of older series as well, which is why it is measured.
    Probe("sockmap_receive_accounting", "6.13", accounting.check_receive_accounting),
)

NAMES: tuple[str, ...] = tuple(probe.name for probe in PROBES)
