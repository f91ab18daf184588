# Copyright (c) meshaccel contributors
# SPDX-License-Identifier: Apache-2.0
"""What each accelerator needs of a node, and the error for what it lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import Unsupported
from ..model import Answer, Capability

#: All that bpf/sockops.bpf.c uses. Not in it: sk_msg_rdonly_cast and sk_msg_cast_to_kern_ctx
#: (sk_msg_probe_read_kernel and sk_msg_redirect_hash do as well, at more cost).
SOCKOPS_NEEDS: tuple[str, ...] = (
    "bpf_syscall",
    "libbpf",
    "kernel_btf",
    "bpffs",
    "cgroup2",
    "cgroup_link",
    "map_prog_array",
    "map_sockmap",
    "map_sockhash",
    "map_cgroup_storage",
    "map_sk_storage",
    "program_sock_ops",
    "program_sk_msg",
    "sock_ops_sock_map_update",
    "sock_ops_sock_hash_update",
    "sock_ops_sock_hash_delete",
    "sock_ops_get_socket_cookie",
    "sock_ops_get_local_storage",
    "sock_ops_sk_storage_get",
    "sock_ops_probe_read_kernel",
    "sock_ops_skc_to_tcp_sock",
    "sk_msg_tail_call",
    "sk_msg_redirect_map",
    "sk_msg_redirect_hash",
    "sk_msg_sk_storage_get",
    "sk_msg_probe_read_kernel",
    "sk_msg_skc_to_tcp_sock",
    "sockmap_iterator",
    "sockmap_receive_accounting",
)

#: What of it the loader bcc does without. On a kernel without BTF nothing goes over the table's sockets.
NEEDED_BY_LIBBPF = frozenset(
    {"kernel_btf", "sock_ops_skc_to_tcp_sock", "sk_msg_skc_to_tcp_sock", "sockmap_iterator"}
)

#: All that bpf/ipvs_bpf.bpf.c uses, and what it is for. Not in it: sched_cls_timer; without it the follow
#: daemon ends what is over.
IPVS_BPF_NEEDS: tuple[str, ...] = (
    "bpf_syscall",
    "libbpf",
    "bpffs",
    "map_hash",
    "map_lpm_trie",
    "map_lru_hash",
    "map_percpu_array",
    "map_prog_array",
    "program_sched_cls",
    "sched_cls_fib_lookup",
    "sched_cls_redirect_neigh",
    "sched_cls_ktime_get_coarse_ns",
    "ipvs",
)

#: By accelerator, and for sockops by its loader.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "sockops": SOCKOPS_NEEDS,
    "ipvs_bpf": IPVS_BPF_NEEDS,
    "sockops_bcc": tuple(name for name in SOCKOPS_NEEDS if name not in NEEDED_BY_LIBBPF),
}


def require(capabilities: Mapping[str, Capability], names: Iterable[str], for_what: str) -> None:
    """Raises Unsupported unless the node has all of these.

    What could not be determined counts as lacking: support is shown, not assumed.
    The error names each with its reason, and the lowest kernel that has them all.
    Where the node said no to some, those are the cause, and what could then not be
    determined is left out.
    """
    asked = [capabilities[name] for name in names]
    refused = [capability for capability in asked if capability.answer is Answer.NO]
    lacking = refused or [capability for capability in asked if capability.answer is Answer.UNKNOWN]
    if not lacking:
        return
    raise Unsupported(
        wanted=f"{', '.join(capability.name for capability in lacking)} for {for_what}",
        found="; ".join(f"{capability.name}: {capability}" for capability in lacking),
        remedy=remedy(lacking, for_what),
    )


def remedy(lacking: Iterable[Capability], for_what: str) -> str:
    """Says what helps: another kernel for what the kernel lacks, else the reason itself does."""
    kernels = [
        capability.lowest_kernel
        for capability in lacking
        if capability.answer is Answer.NO and capability.lowest_kernel
    ]
    if not kernels:
        return f"mend what the reasons name, or leave this node out of {for_what}"
    newest = max(kernels, key=version)
    return (
        f"Linux {newest} and newer can have it (a distribution's older kernel may): mend what the reasons "
        f"name, boot such a kernel, or leave this node out of {for_what}"
    )


def version(release: str) -> tuple[int, ...]:
    """Returns a kernel release such as ``5.10`` as numbers that compare."""
    return tuple(int(part) for part in release.split("."))
