"""The module bpf_program when something stands in its way: what it says, and what it leaves."""

from __future__ import annotations

@pytest.fixture
def node() -> Iterator[Node]:
    """A node with nothing on it."""
    with own_node() as made:
        yield made


@pytest.fixture(scope="module")
def topology(cgroups: Cgroups) -> Iterator[Topology]:
    """Two ends in one namespace, in a cgroup each."""
    with one_pod(cgroups) as made:
        yield made


def open_one(topology: Topology) -> None:
    """Open a connection from the client's cgroup to the server's."""
    with connected(topology.client, topology.server, topology.address4):
        pass


# ---- failure ----


def plan_length(node: Node, parameters: dict[str, Any]) -> int:
    return len(node.done(MODULE, check_mode=True, **parameters)["actions"])


@pytest.mark.parametrize("change", ["install", "update", "remove"])
def test_a_failure_at_any_step_leaves_everything_as_it_was(
    node: Node, cgroups: Cgroups, change: str
) -> None:
    """Down to the kernel's ids of programs, maps and links: the way back is no second installation."""
    if change != "install":
        node.done(MODULE, **wish(1, cgroups.client))
    update = wish(2, cgroups.client, maximum_entries={"skipped_ports": 5}, cgroups=[str(cgroups.server.path)])
    parameters = {"state": "present", **(ABSENT if change == "remove" else update)}
    steps = plan_length(node, parameters)
    before = node.pins()
    program = PinnedProgram.parse(parameters, node.paths)

    for failing in range(steps):
        passed: list[Action] = []

        def fail_there(action: Action, at: int = failing, passed: list[Action] = passed) -> None:
            passed.append(action)
            if len(passed) > at:
                raise OSError("injected")

        with pytest.raises(ApplyFailed, match="injected") as raised:
            converge(program, node.paths, before_action=fail_there)
        assert raised.value.undo_errors == ()
        assert node.pins() == before
        running = attach.programs_at(str(cgroups.client.path))
        assert running == ((before[PIN],) if before else ())
        assert attach.programs_at(str(cgroups.server.path)) == ()

    converge(program, node.paths)
    assert node.pins() != before


def test_a_cgroup_that_somebody_holds_alone_is_named_with_its_holder(
    node: Node, cgroups: Cgroups
) -> None:
    node.done(MODULE, **wish(1, cgroups.client))
    before = node.pins()
    with own_node() as elsewhere, TestCgroup("held") as held:
        elsewhere.done(MODULE, **wish(1))
        words = [str(held.path), "cgroup_sock_ops", "pinned", str(elsewhere.pin(PIN))]
        run(["bpftool", "cgroup", "attach", *words])

        result = node.run(
            MODULE, **wish(2, cgroups.client, cgroups=[*wish(2, cgroups.client)["cgroups"], str(held.path)])
        )

        assert "held exclusively by count_connecti" in result["found"]
        assert node.pins() == before


def test_a_run_waits_for_the_one_before_and_names_it_in_vain(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_part("bpf.declared"), "node_lock", impatient(import_part("lock").node_lock))
    with lock.node_lock(node.paths, "a long run"):
        result = node.run(MODULE, **ABSENT)
    assert "a long run" in result["found"]


def impatient(node_lock: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same lock, that waits for nobody."""
    return lambda paths, purpose: node_lock(paths, purpose, 0.0)


# ---- refusals ----


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"program": "count_conections"}, "count_connections"),
        ({"program": "refused_by_the_verifier"}, "invalid mem access"),
        ({"program": "attaches_to_no_cgroup"}, "type 1"),
        ({"constants": {"stp": 1}}, "step (near)"),
        ({"constants": {"step": 1 << 32}}, "4294967296"),
        ({"maximum_entries": {"skipped_port": 1}}, "skipped_ports (near)"),
        ({"maximum_entries": {"skipped_ports": 0}}, "0"),
        ({"reuse_maps": {"connections": "none"}}, "no such pin"),
        ({"object": "/nonexistent/count.bpf.o"}, "no such file"),
        ({"object": "/etc/passwd"}, "read the BTF"),
        ({"cgroups": ["no/such/cgroup"]}, "no such cgroup"),
        ({"cgroups": ["../../etc"]}, "outside"),
        ({"cgroups": [".", "."]}, "second time"),
        ({"pin": "../count"}, "outside"),
        ({"pin": "count.v1"}, "count.v1"),
        ({"pin": "sockops/programs/count"}, "sockops"),
    ],
    ids=lambda value: str(next(iter(value.items()))) if isinstance(value, dict) else "",
)
def test_a_wrong_wish_is_refused_with_a_reason_and_nothing_changed(
    node: Node, cgroups: Cgroups, settings: dict[str, Any], found: str
) -> None:
    result = node.run(MODULE, **wish(1, cgroups.client, **settings))
    assert result["failed"] is True
    assert found in result["found"]
    assert result["remedy"]
    assert not Path(node.paths.bpffs).exists()
