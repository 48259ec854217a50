"""KV events, read as vLLM's example of a subscriber reads them."""

import hashlib
import re
import struct
import time

import msgpack
import pytest
import zmq

BLOCK = 16
END = (-1).to_bytes(8, "big", signed=True)
SNAPSHOT = (-2).to_bytes(8, "big", signed=True)
SHARED = list(range(1000, 1000 + 4 * BLOCK))
PROMPTS = [SHARED + [2000 + 100 * i + j for j in range(36)] for i in range(2)]


class Blocks:
    """What is stored, as the events tell it: hash -> (parent, token ids)."""

    def __init__(self):
        self.held = {}

    def apply(self, payload):
        timestamp, events, rank = msgpack.unpackb(payload)
        assert abs(time.time() - timestamp) < 600 and rank == 0
        for tag, *fields in events:
            getattr(self, tag)(*fields)

    def BlockStored(self, hashes, parent, token_ids, block_size, lora_id, medium, lora_name):
        assert (block_size, lora_id, medium, lora_name) == (BLOCK, None, "GPU", None)
        assert len(token_ids) == len(hashes) * block_size
        for i, block in enumerate(hashes):
            assert block not in self.held
            assert parent is None or parent in self.held
            self.held[block] = (parent, token_ids[i * BLOCK : (i + 1) * BLOCK])
            parent = block

    def BlockRemoved(self, hashes, medium):
        for block in hashes:
            del self.held[block]

    def AllBlocksCleared(self):
        self.held.clear()

    def chain(self, block):
        """All tokens up to the end of a block."""
        parent, ids = self.held[block]
        return (self.chain(parent) if parent is not None else []) + ids


class Subscriber:
    """A subscription and the replay socket of one server."""

    def __init__(self, server, topic=""):
        self.context = zmq.Context()
        log = server.logged()
        self.replay_endpoint = re.search(r"replaying KV events on (\S+)", log).group(1)
        self.live = self.context.socket(zmq.SUB)
        self.live.connect(re.search(r"publishing KV events on (\S+)", log).group(1))
        self.live.subscribe(topic)
        self.topic = topic.encode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.destroy(linger=0)

    def receive(self, milliseconds):
        """The next (sequence, payload), if one comes in time."""
        if not self.live.poll(milliseconds):
            return None
        topic, sequence, payload = self.live.recv_multipart()
        assert topic == self.topic
        return int.from_bytes(sequence, "big"), payload

    def ask(self, request):
        """The frames of each message of an answer, without its end."""
        socket = self.context.socket(zmq.DEALER)
        socket.connect(self.replay_endpoint)
        socket.send_multipart([b"", request])
        answer = []
        while True:
            assert socket.poll(10_000)
            empty, sequence, payload, *rest = socket.recv_multipart()
            assert empty == b""
            if not payload:
                assert sequence == END
                socket.close(0)
                return answer
            answer.append((sequence, payload, *rest))

    def replay(self, first):
        blocks = Blocks()
        for expected, (sequence, payload) in enumerate(self.ask(first.to_bytes(8, "big")), first):
            assert int.from_bytes(sequence, "big") == expected
            blocks.apply(payload)
        return blocks


@pytest.fixture
def publish(start_server):
    """Starts a server that publishes on free ports."""

    def start(*args):
        endpoints = [f"--kv-events-{name}endpoint=tcp://127.0.0.1:*" for name in ("", "replay-")]
        return start_server(*endpoints, *args)

    return start


def complete(server, prompt):
    with server.http() as http:
        body = {"prompt": prompt, "max_tokens": 1, "temperature": 0}
        http.post("/v1/completions", json=body).raise_for_status()


def await_subscription(server, subscriber):
    """Answers requests until their events are received; returns the last sequence."""
    for i in range(200):
        complete(server, [3000 + i] * BLOCK)
        if (received := subscriber.receive(50)) is not None:
            last = received
            while (received := subscriber.receive(200)) is not None:
                last = received
            return last[0]
    pytest.fail("nothing was received")


def check_prompts(blocks):
    """Both prompts' six full blocks, of which they share four."""
    chains = sorted(blocks.chain(block) for block in blocks.held)
    shared = [SHARED[: BLOCK * (i + 1)] for i in range(4)]
    own = [prompt[: BLOCK * n] for prompt in PROMPTS for n in (5, 6)]
    assert chains == sorted(shared + own)


def test_the_events_describe_the_blocks_of_the_prompts(publish):
    server = publish("--kv-events-topic", "kv", "--kv-events-hashes", "bytes")
    with Subscriber(server, "kv") as subscriber:
        last = await_subscription(server, subscriber)
        for prompt in PROMPTS:
            complete(server, prompt)
        blocks = Blocks()
        while len(blocks.held) < 8:
            sequence, payload = subscriber.receive(10_000)
            assert sequence == last + 1
            last = sequence
            blocks.apply(payload)
        assert subscriber.receive(200) is None
        assert server.metric("kvasir_kv_event_batches_published_total") == last + 1
        assert server.metric("kvasir_kv_event_batches_dropped_total") == 0
    check_prompts(blocks)
    for block, (parent, ids) in blocks.held.items():
        unit = (parent or b"") + struct.pack(f"<{BLOCK}i", *ids)
        assert parent is None or block == hashlib.sha256(unit).digest()[:16]


def test_who_comes_late_gets_all_by_replay_and_by_snapshot(publish):
    server = publish()
    for prompt in PROMPTS:
        complete(server, prompt)
    with Subscriber(server) as subscriber:
        deadline = time.monotonic() + 10
        while len((replayed := subscriber.replay(0)).held) < 8:
            assert time.monotonic() < deadline
        check_prompts(replayed)
        assert all(isinstance(block, int) for block in replayed.held)
        [(sequence, payload, left)] = subscriber.ask(SNAPSHOT)
        assert int.from_bytes(left, "big") == 0
        snapshot = Blocks()
        snapshot.apply(payload)
        assert snapshot.held == replayed.held
        following = int.from_bytes(sequence, "big") + 1
        assert not subscriber.replay(following).held
        complete(server, [4000] * BLOCK * 2)
        while len((more := subscriber.replay(following)).held) < 2:
            assert time.monotonic() < deadline
        assert server.metric("kvasir_kv_event_snapshots_total") == 1


def test_evicted_blocks_are_removed(publish):
    server = publish("--max-model-len", "256", "--kv-cache-memory", "6MiB")
    with Subscriber(server) as subscriber:
        for i in range(10):
            complete(server, [5000 + i] * 4 * BLOCK)
        deadline = time.monotonic() + 10
        while True:
            replayed = subscriber.replay(0).held
            cached = server.metric("kvasir_kv_blocks", state="cached")
            if len(replayed) == cached:
                break
            assert time.monotonic() < deadline
        assert 0 < cached < 10 * 4
        [(_, payload, _)] = subscriber.ask(SNAPSHOT)
        snapshot = Blocks()
        snapshot.apply(payload)
        assert snapshot.held == replayed


def test_a_client_that_asks_as_vllms_does_gets_the_first_batch_missed(publish):
    server = publish()
    complete(server, PROMPTS[0])
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        endpoint = re.search(r"replaying KV events on (\S+)", server.logged()).group(1)
        socket.linger = 0
        socket.connect(endpoint)
        socket.send((0).to_bytes(8, "big"))
        assert socket.poll(10_000)
        sequence, payload = socket.recv_multipart()
        assert int.from_bytes(sequence, "big") in (0, 2**64 - 1)
        if payload:
            assert msgpack.unpackb(payload)[1][0][0] == "BlockStored"


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--kv-events-endpoint", "tcp://0.0.0.0:5557"], "--kv-events-allow-remote"),
        (["--kv-events-endpoint", "127.0.0.1:5557"], "kv-events-endpoint: "),
        (["--kv-events-replay-endpoint", "tcp://127.0.0.1:5558"], "needs a kv-events-endpoint"),
        (["--kv-events-endpoint=tcp://127.0.0.1:*", "--kv-events-hashes", "x"], "hashes"),
    ],
)
def test_what_may_not_be_is_refused(kvasir, flags, message):
    result = kvasir("serve", "default", "--port", "0", *flags)
    assert result.returncode != 0
    assert message in result.stderr


def test_a_taken_endpoint_ends_the_server(publish, kvasir):
    server = publish()
    endpoint = re.search(r"publishing KV events on (\S+)", server.logged()).group(1)
    result = kvasir("serve", "default", "--port", "0", "--kv-events-endpoint", endpoint)
    assert result.returncode == 1
    assert endpoint in result.stderr
