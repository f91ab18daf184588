"""Capabilities: what an answer is made of, what is required, and that the list of needs is complete."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from meshaccel.bpf import assembly, libbpf, syscall
from meshaccel.bpf.libbpf import BpfError
from meshaccel.capabilities import NAMES, NEEDS, SOCKOPS_NEEDS, check_names, node, probe, require
from meshaccel.capabilities.catalogue import PROBES, Check, Probe
from meshaccel.capabilities.needs import version
from meshaccel.capabilities.run import SAYS_NOTHING, ask
from meshaccel.capabilities.session import Lacking, Session, Undetermined
from meshaccel.errors import InvalidInput, Unsupported
from meshaccel.model import Answer, Capability
from meshaccel.paths import NodePaths
from meshaccel.system import mounts

BPF = Path(__file__).resolve().parents[2] / "bpf"
#: All of the object's source.
SOURCE = "".join(
    path.read_text(encoding="utf-8")
    for path in [
        BPF / "sockops.bpf.c",
        *sorted(BPF.glob("sockops/*.h")),
        BPF / "include" / "meshaccel" / "built_ahead.h",
    ]
)

#: The helpers of the BPF object that need no probe of their own: as old as the program types themselves.
OLD_HELPERS = {"map_lookup_elem", "map_update_elem", "map_delete_elem", "sock_ops_cb_flags_set"}
#: The helpers that are probed, with the capability of each program type that uses them.
PROBED_HELPERS = {
    "sock_map_update": {"sock_ops_sock_map_update"},
    "sock_hash_update": {"sock_ops_sock_hash_update"},
    "get_local_storage": {"sock_ops_get_local_storage"},
    "get_socket_cookie": {"sock_ops_get_socket_cookie"},
    "sk_storage_get": {"sock_ops_sk_storage_get", "sk_msg_sk_storage_get", "sockmap_iterator"},
    "skc_to_tcp_sock": {"sock_ops_skc_to_tcp_sock", "sk_msg_skc_to_tcp_sock"},
    "msg_redirect_map": {"sk_msg_redirect_map"},
    "msg_redirect_hash": {"sk_msg_redirect_hash"},
    "tail_call": {"sk_msg_tail_call"},
    "seq_write": {"sockmap_iterator"},
}
#: The same for map types beyond arrays and hashes.
PROBED_MAPS = {
    "CGROUP_STORAGE": "map_cgroup_storage",
    "SOCKMAP": "map_sockmap",
    "SOCKHASH": "map_sockhash",
    "SK_STORAGE": "map_sk_storage",
    "PROG_ARRAY": "map_prog_array",
}
OLD_MAPS = {"ARRAY", "PERCPU_ARRAY", "HASH", "LPM_TRIE"}


def raising(error: Exception) -> Check:
    """Return a probe that fails in this way."""

    def check(_: Session) -> None:
        raise error

    return check


def answer_to(check: Check) -> Capability:
    """Return what a probe that behaves so is reported as."""
    return ask(Probe("feature", "5.10", check), Session(NodePaths()))


def lacking(name: str, kernel: str, answer: Answer = Answer.NO) -> Capability:
    return Capability(name, answer, f"no {name} here", kernel)


class TestAnswers:
    def test_a_probe_that_returns_means_yes(self) -> None:
        capability = answer_to(lambda _: None)

        assert str(capability) == "yes"
        assert capability.lowest_kernel == "5.10"

    @pytest.mark.parametrize(
        ("error", "answer"),
        [
            (Lacking("the reason"), "no: the reason"),
            (Undetermined("the reason"), "unknown: the reason"),
            (
                Unsupported(wanted="w", found="no libbpf", remedy="install it"),
                "unknown: no libbpf; install it",
            ),
            (
                BpfError(errno.EINVAL, "load a program", ("unknown func bpf_new#300",)),
                "no: load a program: Invalid argument | unknown func bpf_new#300",
            ),
            (TimeoutError("timed out"), "unknown: timed out"),
        ],
    )
    def test_a_failure_gives_its_reason(self, error: Exception, answer: str) -> None:
        assert str(answer_to(raising(error))) == answer

    @pytest.mark.parametrize("number", sorted(SAYS_NOTHING))
    def test_a_node_short_of_something_says_nothing_of_the_feature(self, number: int) -> None:
        assert answer_to(raising(BpfError(number, "a call"))).answer is Answer.UNKNOWN

    @pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, 524])
    def test_a_kernel_that_refuses_says_no(self, number: int) -> None:
        assert answer_to(raising(BpfError(number, "a call"))).answer is Answer.NO

    def test_a_mistake_in_a_probe_is_not_taken_for_an_answer(self) -> None:
        with pytest.raises(KeyError):
            answer_to(raising(KeyError("mistake")))


class TestRequire:
    def test_is_silent_when_all_is_there(self) -> None:
        require({name: Capability(name, Answer.YES) for name in NAMES}, SOCKOPS_NEEDS, "sockops")

    def test_ignores_what_is_not_asked_for(self) -> None:
        require({"a": Capability("a", Answer.YES), "b": lacking("b", "5.10")}, ["a"], "sockops")

    def test_names_each_with_its_reason_what_needs_it_and_the_kernel_that_has_all(self) -> None:
        found = {"a": lacking("a", "5.8"), "b": lacking("b", "5.10"), "c": Capability("c", Answer.YES)}

        with pytest.raises(Unsupported) as caught:
            require(found, ["a", "b", "c"], "sockops")

        assert caught.value.wanted == "a, b for sockops"
        assert caught.value.found == "a: no: no a here; b: no: no b here"
        assert "Linux 5.10 " in caught.value.remedy

    def test_unknown_is_not_enough(self) -> None:
        with pytest.raises(Unsupported) as caught:
            require({"a": lacking("a", "5.8", Answer.UNKNOWN)}, ["a"], "sockops")

        assert "Linux" not in caught.value.remedy, "another kernel is no remedy for what was not determined"

    def test_what_could_not_be_asked_does_not_hide_the_cause(self) -> None:
        found = {"a": lacking("a", "4.4"), "b": lacking("b", "5.10", Answer.UNKNOWN)}

        with pytest.raises(Unsupported) as caught:
            require(found, ["a", "b"], "sockops")

        assert caught.value.found == "a: no: no a here"

    def test_kernels_compare_as_numbers(self) -> None:
        assert sorted(["5.10", "6.2", "4.19", "5.8"], key=version) == ["4.19", "5.8", "5.10", "6.2"]


class TestCatalogue:
    def test_names_are_unique(self) -> None:
        assert len(set(NAMES)) == len(NAMES)

    def test_kernels_are_releases(self) -> None:
        assert all(version(probe.lowest_kernel) >= (3, 19) for probe in PROBES if probe.lowest_kernel)

    @pytest.mark.parametrize("accelerator", NEEDS)
    def test_every_need_can_be_probed(self, accelerator: str) -> None:
        check_names(NEEDS[accelerator])

    def test_a_name_that_is_none_is_refused_with_those_there_are(self) -> None:
        with pytest.raises(InvalidInput, match=r"map_sockhash.*found map_sockhsh"):
            probe(["map_sockhsh"])

    def test_every_helper_of_the_program_is_old_or_needed(self) -> None:
        used = set(re.findall(r"\bbpf_(\w+)\(", SOURCE))
        not_helpers = {
            "htonl",
            "ntohl",
            "ntohs",
            "core_field_exists",
            "core_field_offset",
            "core_type_id_kernel",
        }
        # Optional: the program does with older helpers where they are missing.
        optional = {"rdonly_cast", "cast_to_kern_ctx"}

        assert used - not_helpers - optional - OLD_HELPERS == set(PROBED_HELPERS)
        assert set.union(*PROBED_HELPERS.values()) <= set(SOCKOPS_NEEDS)

    def test_reading_kernel_memory_is_needed_where_the_program_does(self) -> None:
        assert "BPF_CORE_READ(" in SOURCE
        assert {"sock_ops_probe_read_kernel", "sk_msg_probe_read_kernel"} <= set(SOCKOPS_NEEDS)

    def test_every_map_type_of_the_program_is_old_or_needed(self) -> None:
        used = set(re.findall(r"\bBPF_MAP_TYPE_(\w+)\b", SOURCE))

        assert used - OLD_MAPS == set(PROBED_MAPS)
        assert set(PROBED_MAPS.values()) <= set(SOCKOPS_NEEDS)


class TestNodeProbes:
    def test_no_libbpf_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(libbpf, "LIBRARIES", ("libbpf-that-is-not-there.so",))
        monkeypatch.setattr(libbpf, "library", libbpf.library.__wrapped__)

        with pytest.raises(Lacking, match="install the package libbpf1"):
            node.check_libbpf(Session(NodePaths()))

    def test_no_kernel_btf_names_the_option(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(node, "KERNEL_BTF", str(tmp_path / "vmlinux"))

        with pytest.raises(Lacking, match="CONFIG_DEBUG_INFO_BTF"):
            node.check_kernel_btf(Session(NodePaths()))

    def test_a_file_that_is_no_btf_does_not_pass(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "vmlinux").write_bytes(b"\x7fELF")
        monkeypatch.setattr(node, "KERNEL_BTF", str(tmp_path / "vmlinux"))

        with pytest.raises(Lacking, match="is no BTF"):
            node.check_kernel_btf(Session(NodePaths()))

    def test_bpffs_needs_a_directory_to_be_mounted_at(self, tmp_path: Path) -> None:
        with pytest.raises(Lacking, match="no directory"):
            node.check_bpffs(Session(NodePaths(bpffs=str(tmp_path / "bpf"))))

    def test_no_cgroup2_is_no(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "mountinfo").write_text("22 1 0:21 / /proc rw - proc proc rw\n", encoding="ascii")
        monkeypatch.setattr(mounts, "MOUNT_INFORMATION", str(tmp_path / "mountinfo"))

        with pytest.raises(Lacking, match="mount -t cgroup2"):
            node.check_cgroup2(Session(NodePaths()))


class TestAssembly:
    """Expected bytes by the tables of RFC 9669, little endian as the machines these tests run on."""

    @pytest.mark.parametrize(
        ("instruction", "expected"),
        [
            (assembly.move(assembly.R6, assembly.R1), "bf16000000000000"),
            (assembly.move_immediate(assembly.R0, -1), "b7000000ffffffff"),
            (assembly.add_immediate(assembly.R2, -8), "07020000f8ffffff"),
            (assembly.load_word_64(assembly.R1, assembly.R6, 72), "7961480000000000"),
            (assembly.store_immediate_64(assembly.R10, -8, 0), "7a0af8ff00000000"),
            (assembly.load_map(assembly.R1, 3), "18110000030000000000000000000000"),
            (assembly.call_helper(107), "850000006b000000"),
            (assembly.call_kernel_function(5), "8520000005000000"),
            (assembly.leave(1), "b7000000010000009500000000000000"),
        ],
    )
    def test_encoding(self, instruction: bytes, expected: str) -> None:
        assert instruction.hex() == expected

    def test_a_jump_skips_all_that_it_is_given(self) -> None:
        skipped = assembly.load_map(assembly.R1, 3) + assembly.call_helper(1)

        assert assembly.jump_if_zero(assembly.R1, skipped) == bytes.fromhex("1501030000000000") + skipped


class TestSystemCall:
    def test_the_verdict_is_the_last_line_that_is_no_statistics(self) -> None:
        log = b"0: (85) call bpf_new#300\nunknown func bpf_new#300\nprocessed 1 insns (limit 1000000)\n"

        assert syscall.verdict(log) == ("unknown func bpf_new#300",)

    def test_no_log_no_verdict(self) -> None:
        assert syscall.verdict(b"") == ()

    def test_an_unknown_machine_is_refused_by_name(self) -> None:
        with pytest.raises(Unsupported, match="vax"):
            syscall.system_call_number("vax")
