"""Conversations over queues: every step waits for the previous one, none for a fixed time."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.websockets import WebSocketDisconnect

from roadseg_serve.errors import DamagedImageError, RequestError
from roadseg_serve.http.stream import IDLE, MAX_BYTES_PER_S, MAX_UNREAD, Streams
from roadseg_serve.messages import Answer, AnswerOptions, Format, ModelName

HANG_S = 30  # ends a test that would wait for ever
MAX_FRAME_BYTES = 100
DEFAULT = AnswerOptions()


class Bench:
    """Segments what it is told, when it is told."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[bytes] = asyncio.Queue()
        self.options: list[AnswerOptions] = []
        self.cancelled: list[bytes] = []
        self._outcomes: dict[bytes, asyncio.Future[Answer]] = {}

    async def segment(self, data: bytes, options: AnswerOptions) -> Answer:
        self.options.append(options)
        self._outcomes[bytes(data)] = asyncio.get_running_loop().create_future()
        self.started.put_nowait(bytes(data))
        try:
            return await self._outcomes[bytes(data)]
        except asyncio.CancelledError:
            self.cancelled.append(bytes(data))
            raise

    def finish(self, data: bytes, version: str = "1") -> None:
        self._outcomes[data].set_result(
            Answer(
                b"mask of " + data, "image/jpeg", ModelName("red", version), road_share=0.25, times_s={"infer": 0.0123}
            )
        )

    def fail(self, data: bytes, error: Exception) -> None:
        self._outcomes[data].set_exception(error)


class Client:
    """The other end: what it sends and gets, and when all of it has been received."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.reads = asyncio.Event()
        self.reads.set()
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._sent.put_nowait({"type": "websocket.connect"})

    def send(self, frame: bytes) -> None:
        self._sent.put_nowait({"type": "websocket.receive", "bytes": frame})

    def say(self, text: str) -> None:
        self._sent.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        self._sent.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def receive(self) -> Any:
        message = await self._sent.get()
        self._sent.task_done()
        return message

    async def taken_in(self) -> None:
        """Until the server has received all that was sent, and done all that it can do about it."""
        await self._sent.join()
        for _ in range(20):  # turns of the event loop, more than any of its chains of tasks has links
            await asyncio.sleep(0)

    async def transmit(self, message: Any) -> None:
        await self.reads.wait()
        self.got.put_nowait(message)

    async def text(self) -> dict[str, Any]:
        message = await self.got.get()
        header: dict[str, Any] = json.loads(message["text"])
        return header

    async def mask(self) -> tuple[int, int, bytes]:
        """Number of the frame, how many were skipped before it, body."""
        header = await self.text()
        body = (await self.got.get())["bytes"]
        return header["frame"], header["skipped"], body


def streams_of(segment: Callable[[bytes, AnswerOptions], Awaitable[Answer]], **options: Any) -> Streams:
    limits: dict[str, Any] = {"max_frame_bytes": MAX_FRAME_BYTES, "max_streams": 4, "note_refusal": lambda _error: None}
    return Streams(segment, **limits | options)


@contextmanager
def connected(streams: Streams, client: Client, options: AnswerOptions = DEFAULT) -> Iterator[asyncio.Task[None]]:
    task = asyncio.create_task(streams.converse(client.receive, client.transmit, options, "id-1"))
    try:
        yield task
    finally:
        task.cancel()


Story = Callable[[Client, Bench], Awaitable[None]]


def tell(story: Story, answer_options: AnswerOptions = DEFAULT, **limits: Any) -> None:
    """Play one conversation."""

    async def play() -> None:
        bench, client = Bench(), Client()
        async with asyncio.timeout(HANG_S):
            with connected(streams_of(bench.segment, **limits), client, answer_options):
                assert (await client.got.get())["type"] == "websocket.accept"
                await story(client, bench)

    asyncio.run(play())


async def closed(client: Client) -> tuple[int, str]:
    message = await client.got.get()
    assert message["type"] == "websocket.close"
    assert len(message["reason"].encode()) <= 123  # what the frame has room for
    return message["code"], message["reason"]


def test_a_frame_gets_its_mask() -> None:
    async def story(client: Client, bench: Bench) -> None:
        client.send(b"A")
        assert await bench.started.get() == b"A"
        bench.finish(b"A")
        assert await client.text() == {
            "frame": 0,
            "skipped": 0,
            "media_type": "image/jpeg",
            "model": {"name": "red", "version": "1"},
            "road_share": 0.25,
            "timings_ms": {"infer": 12.3},
        }
        assert await client.got.get() == {"type": "websocket.send", "bytes": b"mask of A"}
        assert bench.options == [AnswerOptions()]

    tell(story)


def test_every_frame_uses_the_options_of_the_stream() -> None:
    options = AnswerOptions(Format.PNG, 0.25)

    async def story(client: Client, bench: Bench) -> None:
        for frame in (b"A", b"B"):
            client.send(frame)
            await bench.started.get()
        assert bench.options == [options, options]

    tell(story, options)


def test_the_newest_frame_wins() -> None:
    async def story(client: Client, bench: Bench) -> None:
        for frame in (b"A", b"B"):  # both are worked on at once
            client.send(frame)
            assert await bench.started.get() == frame
        for frame in (b"C", b"D", b"E"):
            client.send(frame)
            await client.taken_in()
        assert bench.started.empty()
        bench.finish(b"A")
        assert await client.mask() == (0, 0, b"mask of A")
        assert await bench.started.get() == b"E"
        client.send(b"F")
        await client.taken_in()
        bench.finish(b"B")
        bench.finish(b"E")
        assert await client.mask() == (1, 0, b"mask of B")
        assert await client.mask() == (4, 2, b"mask of E")
        assert await bench.started.get() == b"F"
        bench.finish(b"F")
        assert await client.mask() == (5, 0, b"mask of F")

    tell(story)


def test_no_more_than_the_frames_in_flight_and_the_newest_are_kept() -> None:
    alive: set[bytes] = set()

    class Frame(bytes):
        """UInt8Array that tell when they are let go."""

        def __del__(self) -> None:
            alive.discard(bytes(self))

    async def send(client: Client, name: bytes) -> None:
        alive.add(name)
        client.send(Frame(name))
        await client.taken_in()

    async def story(client: Client, bench: Bench) -> None:
        for name in (b"A", b"B"):
            await send(client, name)
            await bench.started.get()
        for i in range(100):
            await send(client, b"%d" % i)
            assert alive == {b"A", b"B", b"%d" % i}

    tell(story)


def test_answers_keep_the_order_of_the_frames() -> None:
    async def story(client: Client, bench: Bench) -> None:
        for frame in (b"A", b"B"):
            client.send(frame)
            await bench.started.get()
        bench.finish(b"B")
        client.send(b"C")
        await client.taken_in()
        assert client.got.empty()
        bench.finish(b"A")
        assert [await client.mask(), await client.mask()] == [(0, 0, b"mask of A"), (1, 0, b"mask of B")]

    tell(story)


def test_each_answer_names_the_model_that_made_it() -> None:
    async def story(client: Client, bench: Bench) -> None:
        for frame, version in ((b"A", "1"), (b"B", "2")):
            client.send(frame)
            await bench.started.get()
            bench.finish(frame, version)
            assert (await client.text())["model"] == {"name": "red", "version": version}
            await client.got.get()

    tell(story)


def test_a_bad_frame_is_a_problem_and_the_stream_goes_on() -> None:
    noted: list[RequestError] = []

    async def story(client: Client, bench: Bench) -> None:
        client.send(b"A")
        await bench.started.get()
        bench.fail(b"A", DamagedImageError("Send the whole file."))
        assert await client.text() == {
            "frame": 0,
            "skipped": 0,
            "problem": {
                "type": "urn:roadseg:damaged-image",
                "title": "Damaged picture",
                "status": 400,
                "detail": "Send the whole file.",
                "request_id": "id-1",
            },
        }
        client.send(b"B")
        await bench.started.get()
        bench.finish(b"B")
        assert await client.mask() == (1, 0, b"mask of B")
        assert [str(error) for error in noted] == ["Send the whole file."]

    tell(story, note_refusal=noted.append)


async def fill_the_window(client: Client, bench: Bench) -> None:
    """Send frames and take their masks without a `next`, until the server has to wait for one."""
    for i in range(MAX_UNREAD):
        client.send(b"%d" % i)
        await bench.started.get()
        bench.finish(b"%d" % i)
        await client.mask()


def test_a_client_that_never_sends_next_gets_only_the_window() -> None:
    async def story(client: Client, bench: Bench) -> None:
        await fill_the_window(client, bench)
        for frame in (b"A", b"B", b"C"):
            client.send(frame)
            await client.taken_in()
        assert bench.started.empty()
        client.say("next")
        assert await bench.started.get() == b"C"
        bench.finish(b"C")
        assert await client.mask() == (MAX_UNREAD + 2, 2, b"mask of C")

    tell(story)


def test_nothing_piles_up_while_a_send_blocks() -> None:
    async def story(client: Client, bench: Bench) -> None:
        client.reads.clear()
        for frame in (b"A", b"B"):
            client.send(frame)
            await bench.started.get()
            bench.finish(frame)
        for i in range(10):
            client.send(b"%d" % i)
            await client.taken_in()
        assert bench.started.empty()
        client.reads.set()
        assert await client.mask() == (0, 0, b"mask of A")
        assert await client.mask() == (1, 0, b"mask of B")
        assert await bench.started.get() == b"9"

    tell(story)


@pytest.mark.parametrize("gone", [OSError("the client is gone"), WebSocketDisconnect(1006)])
def test_a_client_that_is_gone_before_its_answer_is_not_an_error(gone: Exception) -> None:
    async def play() -> None:
        bench, client = Bench(), Client()

        async def transmit(message: Any) -> None:
            if message["type"] != "websocket.accept":
                raise gone
            await client.transmit(message)

        async with asyncio.timeout(HANG_S):
            conversation = asyncio.create_task(
                streams_of(bench.segment).converse(client.receive, transmit, DEFAULT, "id-1")
            )
            for frame in (b"A", b"B"):
                client.send(frame)
                await bench.started.get()
            bench.finish(b"A")
            await conversation
        assert bench.cancelled == [b"B"]

    asyncio.run(play())


def test_a_client_that_never_reads_is_dropped() -> None:
    async def play() -> None:
        bench, client = Bench(), Client()
        async with asyncio.timeout(HANG_S):
            with connected(streams_of(bench.segment, idle_timeout_s=0.5), client) as conversation:
                await client.got.get()
                client.send(b"A")
                await bench.started.get()
                client.reads.clear()
                bench.finish(b"A")
                await conversation
        assert client.got.empty()

    asyncio.run(play())


def test_a_disconnect_cancels_the_work_in_progress() -> None:
    async def play() -> None:
        bench, client = Bench(), Client()
        async with asyncio.timeout(HANG_S):
            with connected(streams_of(bench.segment), client) as conversation:
                for frame in (b"A", b"B"):
                    client.send(frame)
                    await bench.started.get()
                client.leave()
                await conversation
        assert sorted(bench.cancelled) == [b"A", b"B"]
        assert (await client.got.get())["type"] == "websocket.accept"
        assert client.got.empty()  # nothing is sent to one who is not there

    asyncio.run(play())


async def say_hello(client: Client, _bench: Bench) -> None:
    client.say("hello")


async def say_next_too_early(client: Client, _bench: Bench) -> None:
    client.say("next")


async def say_next_twice(client: Client, bench: Bench) -> None:
    client.send(b"A")
    bench.finish(await bench.started.get())
    await client.mask()
    client.say("next")
    await client.taken_in()
    assert client.got.empty()
    client.say("next")


async def send_too_much(client: Client, _bench: Bench) -> None:
    client.send(bytes(MAX_FRAME_BYTES + 1))


@pytest.mark.parametrize(
    ("act", "code"),
    [(say_hello, 1003), (say_next_too_early, 1002), (say_next_twice, 1002), (send_too_much, 1009)],
    ids=["text", "next", "twice", "long"],
)
def test_a_protocol_error_closes_with_its_reason(act: Story, code: int) -> None:
    async def story(client: Client, bench: Bench) -> None:
        await act(client, bench)
        got, reason = await closed(client)
        assert got == code
        assert reason

    tell(story)


def test_a_frame_of_the_maximum_size_is_accepted() -> None:
    async def story(client: Client, bench: Bench) -> None:
        client.send(bytes(MAX_FRAME_BYTES))
        assert len(await bench.started.get()) == MAX_FRAME_BYTES

    tell(story)


def test_a_flood_closes_the_stream_but_a_burst_does_not() -> None:
    data = bytes(MAX_BYTES_PER_S // 4)  # one object, however often it is sent

    async def story(client: Client, bench: Bench) -> None:
        for _ in range(4):
            client.send(data)
        await client.taken_in()
        assert len(await bench.started.get()) == len(data)
        for _ in range(8):
            client.send(data)
        code, reason = await closed(client)
        assert code == 1008
        assert "64 MB/s" in reason

    tell(story, max_frame_bytes=len(data))


def test_a_bug_ends_the_stream_and_is_raised() -> None:
    async def play() -> None:
        bench, client = Bench(), Client()
        async with asyncio.timeout(HANG_S):
            with connected(streams_of(bench.segment), client) as conversation:
                await client.got.get()
                client.send(b"A")
                await bench.started.get()
                bench.fail(b"A", RuntimeError("inside"))
                code, reason = await closed(client)
                assert code == 1011
                assert "inside" not in reason
                with pytest.raises(ExceptionGroup) as faults:
                    await conversation
                assert faults.group_contains(RuntimeError, match="inside")

    asyncio.run(play())


def test_a_silent_client_is_dropped() -> None:
    async def story(client: Client, _bench: Bench) -> None:
        code, reason = await closed(client)
        assert code == IDLE
        assert "next" in reason

    tell(story, idle_timeout_s=0.01)


def test_a_client_that_sends_but_never_confirms_is_dropped() -> None:
    async def story(client: Client, bench: Bench) -> None:
        await fill_the_window(client, bench)
        client.send(b"A")
        assert (await closed(client))[0] == IDLE

    tell(story, idle_timeout_s=0.5)


def test_long_work_does_not_count_as_idle() -> None:
    async def story(client: Client, bench: Bench) -> None:
        for frame in (b"A", b"B"):
            client.send(frame)
            assert await bench.started.get() == frame
        await asyncio.sleep(1)  # twice what an idle client has
        assert client.got.empty()

    tell(story, idle_timeout_s=0.5)


def test_a_stop_ends_all_streams_and_rejects_new_ones() -> None:
    async def play() -> None:
        bench, first, second = Bench(), Client(), Client()
        streams = streams_of(bench.segment)
        async with asyncio.timeout(HANG_S):
            with connected(streams, first):
                await first.got.get()
                first.send(b"A")
                await bench.started.get()
                streams.stop()
                assert (await closed(first))[0] == 1001
            with connected(streams, second):
                await second.got.get()
                assert (await closed(second))[0] == 1001
        assert bench.cancelled == [b"A"]

    asyncio.run(play())


def test_a_stream_too_many_is_told_to_try_later() -> None:
    async def play() -> None:
        bench, first, second, third = Bench(), Client(), Client(), Client()
        streams = streams_of(bench.segment, max_streams=1)
        async with asyncio.timeout(HANG_S):
            with connected(streams, first) as conversation:
                await first.got.get()
                with connected(streams, second):
                    await second.got.get()
                    assert (await closed(second))[0] == 1013
                first.leave()
                await conversation
            with connected(streams, third):
                third.send(b"A")
                assert await bench.started.get() == b"A"

    asyncio.run(play())
