"""Frames in, masks out, over a WebSocket: the newest frame wins, and nothing queues. Contract: docs/stream.md.

Anything between client and server may buffer any number of messages: a proxy reads ahead as fast as a client sends,
and accepts answers for a client that does not read. So `receive` and `send` are never relied on to block: every
frame is received, and dropped for a newer one; at most `MAX_UNREAD` answers are sent before the client says `next`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any

from starlette.types import Message, Receive, Send
from starlette.websockets import WebSocketDisconnect

from roadseg_serve.errors import RequestError
from roadseg_serve.http.problem import problem_body
from roadseg_serve.messages import Answer, AnswerOptions
from roadseg_serve.observe import trace
from roadseg_serve.stages.findings import complete

Segment = Callable[[bytes, AnswerOptions], Awaitable[Answer]]
Problem = dict[str, Any]  # RFC 9457
Work = Callable[[bytes], Coroutine[None, None, Answer | Problem]]

# Two, so that one frame is decoded while the model works on the other; more would only add latency.
MAX_IN_FLIGHT = 2
# Answers that are not confirmed yet: enough for a network latency of a tenth of a second.
MAX_UNREAD = 4
NEXT = "next"
SUBPROTOCOL = "roadseg"
# Half of a gigabit line. Only a client on the same network can send more, which would pile up in a proxy.
MAX_BYTES_PER_S = 64_000_000
IDLE_TIMEOUT_S = 60.0

# Close codes; those from 4000 on are ours, 4000 plus the HTTP status with the same meaning.
GOING_AWAY, PROTOCOL_ERROR, WRONG_KIND, REFUSED, TOO_BIG, FAULT, TRY_LATER = 1001, 1002, 1003, 1008, 1009, 1011, 1013
IDLE = 4408

# Raised by a send if the client is gone, or has not read for so long that it might as well be.
GONE = (OSError, TimeoutError, WebSocketDisconnect)


class _End(Exception):  # noqa: N818 not an error
    """The conversation ends; `code` is None if the client closed it."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


@dataclass
class Streams:
    """All conversations of one process.

    Attributes:
        max_frame_bytes: a longer frame ends its conversation.
        max_streams: open at the same time; further clients are told to try again later.
        note_refusal: called with the error of every refused frame.
        idle_timeout_s: how long a client may neither send a frame nor confirm an answer.
    """

    segment: Segment
    _: KW_ONLY
    max_frame_bytes: int
    max_streams: int
    note_refusal: Callable[[RequestError], None]
    idle_timeout_s: float = IDLE_TIMEOUT_S
    _num_streams: int = field(default=0, init=False)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def stop(self) -> None:
        """End all conversations, and reject new ones."""
        self._stopped.set()

    async def converse(
        self, receive: Receive, send: Send, options: AnswerOptions, request_id: str, subprotocols: Sequence[str] = ()
    ) -> None:
        """Hold one conversation, from the handshake to the close; the client offers `subprotocols`."""
        await receive()  # websocket.connect
        # A browser that offers subprotocols fails unless one is picked; the one that holds the key is never echoed.
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in subprotocols else None
        # Accept even if it ends at once: a browser tells its script the code of a close, but not of a refusal.
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        self._num_streams += 1
        try:
            if self._num_streams > self.max_streams:
                end = _End(TRY_LATER, f"{self.max_streams} streams are open; try again later")
            else:
                work = partial(self._attempt, options=options, request_id=request_id)
                conversation = _Conversation(receive, send, work, self.max_frame_bytes, self.idle_timeout_s)
                end = await conversation.hold(self._stopped)
            await self._close(send, end)
        except Exception:
            await self._close(send, _End(FAULT, "the server failed; the cause is in its log"))
            raise
        finally:
            self._num_streams -= 1

    async def _close(self, send: Send, end: _End) -> None:
        if end.code is not None:
            message = {"type": "websocket.close", "code": end.code, "reason": end.reason}
            with suppress(*GONE):
                # Not asyncio.timeout: before Python 3.11.3 it takes the end of the task group for a cancellation.
                await asyncio.wait_for(send(message), self.idle_timeout_s)

    async def _attempt(self, data: bytes, options: AnswerOptions, request_id: str) -> Answer | Problem:
        try:
            with trace.start_trace("WS /stream frame", {"roadseg.request_id": request_id}):
                return complete(await self.segment(data, options), request_id)
        except RequestError as error:
            self.note_refusal(error)
            return problem_body(error.problem, str(error), request_id)


class _Conversation:
    """One client: a task receives, one takes the newest frame, one answers, one waits for the stop."""

    def __init__(self, receive: Receive, send: Send, work: Work, max_frame_bytes: int, idle_timeout_s: float) -> None:
        self._receive = receive
        self._send = send
        self._work = work
        self._max_frame_bytes = max_frame_bytes
        self._idle_timeout_s = idle_timeout_s
        self._num_frames = 0
        self._newest = b""
        self._is_waiting = asyncio.Event()
        self._may_work = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._may_answer = asyncio.Semaphore(MAX_UNREAD)
        self._num_unread = 0
        self._allowance_bytes = float(MAX_BYTES_PER_S)  # the burst that a client may send
        self._last_frame_s = asyncio.get_running_loop().time()
        # Number of the frame, how many were skipped before it, and the work on it; the semaphores bound its length.
        self._taken: asyncio.Queue[tuple[int, int, asyncio.Task[Answer | Problem]]] = asyncio.Queue()

    async def hold(self, stopped: asyncio.Event) -> _End:
        """Talk until one side ends the conversation or `work` raises something, then cancel the work in progress."""
        end: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._receive_all())
                tasks.create_task(self._take_newest(tasks))
                tasks.create_task(self._answer_in_order())
                tasks.create_task(_stop(stopped))
        except* _End as ends:
            end = ends.exceptions[0]
        assert isinstance(end, _End)
        return end

    async def _receive_all(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                raise _End(None)
            data, text = message.get("bytes"), message.get("text")
            if data is not None:
                self._keep(data)
            elif text == NEXT:
                self._note_read()
            else:
                raise _End(WRONG_KIND, f"send a picture as a binary message, or the text '{NEXT}'")

    def _keep(self, data: bytes) -> None:
        """Replace the waiting frame, if there is one."""
        if len(data) > self._max_frame_bytes:
            raise _End(
                TOO_BIG, f"frames are limited to {self._max_frame_bytes / 1e6:g} MB; scale down or compress more"
            )
        now_s = asyncio.get_running_loop().time()
        self._allowance_bytes += (now_s - self._last_frame_s) * MAX_BYTES_PER_S
        self._allowance_bytes = min(self._allowance_bytes, MAX_BYTES_PER_S) - len(data)
        self._last_frame_s = now_s
        if self._allowance_bytes < 0:
            raise _End(REFUSED, f"over {MAX_BYTES_PER_S / 1e6:g} MB/s; do not send faster than the camera records")
        self._newest = data
        self._num_frames += 1
        self._is_waiting.set()

    def _note_read(self) -> None:
        if self._num_unread == 0:
            raise _End(PROTOCOL_ERROR, f"send '{NEXT}' once for each answer, after receiving it")
        self._num_unread -= 1
        self._may_answer.release()

    async def _take_newest(self, tasks: asyncio.TaskGroup) -> None:
        last = -1
        while True:
            await self._may_work.acquire()
            try:
                async with asyncio.timeout(self._idle_timeout_s):
                    await self._may_answer.acquire()
                    await self._is_waiting.wait()
            except TimeoutError:
                reason = f"idle for {self._idle_timeout_s:g} s; send frames, and '{NEXT}' after each answer"
                raise _End(IDLE, reason) from None
            self._is_waiting.clear()
            number = self._num_frames - 1
            work = tasks.create_task(self._work(self._newest))
            self._taken.put_nowait((number, number - last - 1, work))
            last = number

    async def _answer_in_order(self) -> None:
        while True:
            number, num_skipped, work = await self._taken.get()
            outcome = await work
            self._num_unread += 1
            described = _describe(outcome) if isinstance(outcome, Answer) else {"problem": outcome}
            header = {"frame": number, "skipped": num_skipped} | described
            await self._deliver({"type": "websocket.send", "text": json.dumps(header)})
            if isinstance(outcome, Answer):
                await self._deliver({"type": "websocket.send", "bytes": outcome.body})
            self._may_work.release()

    async def _deliver(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                await self._send(message)
        except GONE:
            raise _End(None) from None


async def _stop(stopped: asyncio.Event) -> None:
    await stopped.wait()
    raise _End(GOING_AWAY, "the server is stopping; connect again")


def _describe(answer: Answer) -> dict[str, object]:
    """The text message before a mask."""
    return {
        "media_type": answer.media_type,
        "model": {"name": answer.model.name, "version": answer.model.version},
        "road_share": answer.road_share,
        "timings_ms": {step: round(1000 * time_s, 1) for step, time_s in answer.times_s.items()},
    }
