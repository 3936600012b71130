"""Send a video or camera to /stream in real time, and print how many masks come back.

    .venv/dev/bin/python docs/stream_client.py drive.mp4
    .venv/dev/bin/python docs/stream_client.py /dev/video0 --camera v4l2 --url wss://road.example --key KEY

stream.md describes the protocol.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Annotated

import av
import typer
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect


@dataclass
class Tally:
    """What has been sent and received so far.

    Attributes:
        num_sent: frames sent.
        num_masks: results with a mask.
        num_problems: frames that were refused.
        num_skipped: frames that the server skipped for a newer one.
        sent_s: when each frame without a result was sent, by frame number.
        is_complete: whether all frames have been sent.
    """

    num_sent: int = 0
    num_masks: int = 0
    num_problems: int = 0
    num_skipped: int = 0
    sent_s: dict[int, float] = field(default_factory=dict)
    is_complete: bool = False

    @property
    def is_answered(self) -> bool:
        """Whether every frame has been sent and has its result."""
        return self.is_complete and not self.sent_s


def main(
    source: Annotated[str, typer.Argument(help="Video file or camera device.")],
    camera: Annotated[str | None, typer.Option(help="Camera API: v4l2, avfoundation or dshow.")] = None,
    url: Annotated[str, typer.Option(help="Server URL.")] = "ws://localhost:5000",
    form: Annotated[str, typer.Option("--format", help="jpeg, png, probability, overlay or json.")] = "jpeg",
    key: Annotated[str | None, typer.Option(help="API key, if the server needs one.")] = None,
) -> None:
    """Print the frames sent, masks received, frames skipped and the age of the last mask once a second."""
    asyncio.run(stream_video(source, camera, f"{url}/stream?format={form}", key))


async def stream_video(source: str, camera: str | None, address: str, key: str | None) -> None:
    """Send and receive concurrently until the video ends and its last frame has a result."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    # The pictures are already compressed.
    async with connect(address, additional_headers=headers, compression=None, max_size=None) as stream:
        tally = Tally()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send_frames(stream, jpegs(source, camera), tally))
            tasks.create_task(receive_masks(stream, tally))


def jpegs(source: str, camera: str | None) -> Iterator[bytes]:
    """Yield the frames as JPEG, at the pace at which they were filmed."""
    with av.open(source, format=camera) as container:
        started_s = time.monotonic()
        for frame in container.decode(video=0):
            if camera is None and frame.time is not None:
                time.sleep(max(0.0, started_s + frame.time - time.monotonic()))
            buffer = BytesIO()
            Image.fromarray(frame.to_ndarray(format="rgb24")).save(buffer, "JPEG", quality=85)
            yield buffer.getvalue()


async def send_frames(stream: ClientConnection, frames: Iterator[bytes], tally: Tally) -> None:
    """Send every frame; the server decides what to skip."""
    while (data := await asyncio.to_thread(next, frames, None)) is not None:
        tally.sent_s[tally.num_sent] = time.monotonic()
        tally.num_sent += 1
        await stream.send(data)
    tally.is_complete = True
    await close_if_answered(stream, tally)


async def receive_masks(stream: ClientConnection, tally: Tally) -> None:
    """Receive results until the stream closes."""
    told_s = time.monotonic()
    async for message in stream:
        header = json.loads(message)
        if "problem" in header:
            tally.num_problems += 1
            print(f"frame {header['frame']}: {header['problem']['detail']}")
        else:
            await stream.recv()  # the mask; a real client would show it
            tally.num_masks += 1
        await stream.send("next")
        now_s = time.monotonic()
        age_s = now_s - tally.sent_s[header["frame"]]
        tally.num_skipped += header["skipped"]
        tally.sent_s = {number: sent_s for number, sent_s in tally.sent_s.items() if number > header["frame"]}
        if now_s - told_s >= 1 or tally.is_answered:
            told_s = now_s
            print(
                f"{tally.num_sent} sent, {tally.num_masks} masks, {tally.num_skipped} skipped, "
                f"{tally.num_problems} refused, {1000 * age_s:.0f} ms old",
                flush=True,
            )
        await close_if_answered(stream, tally)


async def close_if_answered(stream: ClientConnection, tally: Tally) -> None:
    """Close the stream after the last result."""
    if tally.is_answered:
        await stream.close()


if __name__ == "__main__":
    typer.run(main)
