"""Redis: values, pipelines, messages and replicas are as they are without sockops."""

from __future__ import annotations

import random
import string
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.kernel.observation import wait_until
from tests.peers.addresses import ADDRESS
from tests.peers.arms import STREAM_SHARE, Result, assert_accelerated, assert_same
from tests.peers.bodies import KIBIBYTE, MEBIBYTE, Received
from tests.peers.pod import accelerated_pod
from tests.peers.redis import MASTER_PORT, SECONDS, Redis, Servers, answers_to, wait_for_replica
from tests.support.socket_maker import SocketMaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LENGTHS = (1, 2, 100, 1023, KIBIBYTE, 4097, 16 * KIBIBYTE, 65_537, 300_000, MEBIBYTE, 4 * MEBIBYTE)
CLIENTS = 4
ROUNDS = 2
LETTERS = string.ascii_letters + string.digits


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One pod for the tests of this file."""
    with accelerated_pod("redis", "client", "master", "replica") as pod:
        yield Servers(pod, tmp_path_factory.mktemp("redis"))


def value(length: int) -> str:
    """Return a random text: always the same, and others for every length."""
    return "".join(random.Random(length).choices(LETTERS, k=length))


def with_master(servers: Servers, scenario: Callable[[Redis], Result]) -> Callable[[], Result]:
    """Return a scenario that begins with an empty server and ends with it."""

    def run_scenario() -> Result:
        with servers.master() as redis:
            return scenario(redis)

    return run_scenario


def test_values_come_back_whole(servers: Servers) -> None:
    values = [value(length) for length in LENGTHS]
    commands = [f"SET key{index} {each}" for index, each in enumerate(values)]
    commands += [f"GET key{index}" for index in range(len(values))]
    outcome = assert_same(servers.pod.node, with_master(servers, lambda redis: redis.ask_in_turn(commands)))
    assert outcome.result.splitlines() == ["OK"] * len(values) + values
    assert_accelerated(outcome, 2 * sum(LENGTHS))


def test_an_empty_value_is_a_value(servers: Servers) -> None:
    commands = ['SET empty ""', "EXISTS empty", "GET empty", "GET missing"]
    outcome = assert_same(servers.pod.node, with_master(servers, lambda redis: redis.ask_in_turn(commands)))
    assert outcome.result.splitlines() == ["OK", "1", "", ""]


def test_a_pipeline_loses_nothing(servers: Servers) -> None:
    sizes = random.Random(1)
    commands = [["SET", f"key{index}", value(sizes.randint(1, 2000))] for index in range(10_000)]
    commands += [["INCR", "counter"]] * 10_000

    def scenario(redis: Redis) -> str:
        summary = redis.pipe(commands).splitlines()[-1]
        return "\n".join([summary, redis.ask("GET", "counter"), redis.ask("DBSIZE"), redis.digest()])

    outcome = assert_same(servers.pod.node, with_master(servers, scenario))
    assert outcome.result.splitlines()[:3] == [f"errors: 0, replies: {len(commands)}", "10000", "10001"]
    assert_accelerated(outcome, sum(len(word) for command in commands for word in command), STREAM_SHARE)


def test_big_values_in_pipelines_come_back_whole(servers: Servers) -> None:
    """Several clients at once send more than they read, each with values of all lengths."""
    values = [value(length) for length in LENGTHS] * ROUNDS

    def commands(client: int) -> list[list[str]]:
        words = [["SET", f"{client}-{index}", each] for index, each in enumerate(values)]
        words += [["GET", f"{client}-{index}"] for index in range(len(values))]
        return [*words, ["QUIT"]]

    def scenario(_redis: Redis) -> list[Received]:
        with SocketMaker(servers.pod.namespace, servers.pod.cgroups["client"]) as maker:
            connections = [maker.connect(ADDRESS, MASTER_PORT) for _ in range(CLIENTS)]
            with ThreadPoolExecutor(CLIENTS) as threads:
                all_commands = map(commands, range(CLIENTS))
                answers = threads.map(answers_to, connections, all_commands, timeout=SECONDS)
                return list(map(Received.of, answers))

    outcome = assert_same(servers.pod.node, with_master(servers, scenario))
    bulks = "".join(f"${len(each)}\r\n{each}\r\n" for each in values)
    whole = "+OK\r\n" * len(values) + bulks + "+OK\r\n"
    assert outcome.result == [Received.of(whole.encode("ascii"))] * CLIENTS
    assert_accelerated(outcome, 2 * CLIENTS * sum(map(len, values)), STREAM_SHARE)


def test_transactions_are_all_or_nothing(servers: Servers) -> None:
    commands_and_answers = [
        ("MULTI", "OK"),
        ("SET counter 1", "QUEUED"),
        ("RPUSH list a b c", "QUEUED"),
        ("LRANGE list 0 -1", "QUEUED"),
        ("EXEC", "OK\n3\na\nb\nc"),
        ("WATCH counter", "OK"),
        ("INCR counter", "2"),
        ("MULTI", "OK"),
        ("INCR counter", "QUEUED"),
        ("EXEC", ""),  # refused: what was watched has changed
        ("MULTI", "OK"),
        ("INCR counter", "QUEUED"),
        ("DISCARD", "OK"),
        ("GET counter", "2"),
    ]
    commands = [command for command, _ in commands_and_answers]
    outcome = assert_same(servers.pod.node, with_master(servers, lambda redis: redis.ask_in_turn(commands)))
    assert outcome.result.splitlines() == "\n".join(each for _, each in commands_and_answers).splitlines()


def test_published_messages_arrive_in_order(servers: Servers) -> None:
    messages = [f"{index}-{value(index % 500 + 1)}" for index in range(1000)]

    def scenario(redis: Redis) -> str:
        with redis.in_background("redis-cli", "SUBSCRIBE", "channel") as subscriber:
            wait_until(lambda: redis.ask("PUBSUB", "NUMSUB", "channel").endswith("1"), "the subscriber")
            receivers = redis.ask_in_turn([f"PUBLISH channel {message}" for message in messages])
            assert receivers.split() == ["1"] * len(messages)
            output = subscriber.output_path
            wait_until(lambda: messages[-1] in output.read_text(encoding="ascii"), "the last message")
            return output.read_text(encoding="ascii")

    outcome = assert_same(servers.pod.node, with_master(servers, scenario))
    received = outcome.result.splitlines()[3:]
    assert received == [line for message in messages for line in ("message", "channel", message)]
    assert_accelerated(outcome, 2 * sum(map(len, messages)))


def test_a_blocked_client_is_woken_for_each_element(servers: Servers) -> None:
    elements = [value(length) for length in LENGTHS]

    def scenario(redis: Redis) -> str:
        repeat = ("-r", str(len(elements)))
        with redis.in_background("redis-cli", *repeat, "BLPOP", "first", "second", "10") as blocked:
            for element in elements:
                wait_until(lambda: redis.information("clients")["blocked_clients"] == "1", "a blocked client")
                redis.ask_in_turn([f"RPUSH second {element}"])
            return blocked.wait(timeout=10)

    outcome = assert_same(servers.pod.node, with_master(servers, scenario))
    assert outcome.result.splitlines() == [line for each in elements for line in ("second", each)]
    assert_accelerated(outcome, 2 * sum(LENGTHS))


def test_many_clients_with_pipelines(servers: Servers) -> None:
    requests, size = 20_000, 3000

    def scenario(redis: Redis) -> str:
        words = ("-n", str(requests), "-c", "50", "-P", "16", "-d", str(size))
        redis.load(*words, "-t", "set,get,incr,lpush,lpop,hset")
        return redis.digest()

    outcome = assert_same(servers.pod.node, with_master(servers, scenario))
    assert_accelerated(outcome, requests * size * 4, STREAM_SHARE)


def test_a_replica_becomes_the_same(servers: Servers) -> None:
    """It copies the data while that changes, and afterwards follows the changes."""
    values = [["SET", f"key{index}", value(index)] for index in range(3000)]
    writes = ("-q", "-n", "20000", "-r", "1000", "-d", "1000", "-t", "set,lpush,sadd")

    def scenario() -> tuple[bool, str, str]:
        with servers.master() as master:
            master.pipe(values)
            with servers.replica() as replica, master.in_background("redis-benchmark", *writes) as writer:
                wait_for_replica(replica)
                writer.wait(timeout=20)
                followers = master.ask("WAIT", "1", "10000")
                copies = master.information("stats")["sync_full"]
                return master.digest() == replica.digest(), followers, copies

    outcome = assert_same(servers.pod.node, scenario)
    assert outcome.result == (True, "1", "1")
    assert_accelerated(outcome, sum(len(word) for command in values for word in command), STREAM_SHARE)
