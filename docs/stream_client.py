"""Send a video or a camera's pictures to /stream as they come, and tell how many masks come back.

    .venv/dev/bin/python docs/stream_client.py drive.mp4
    .venv/dev/bin/python docs/stream_client.py /dev/video0 --camera v4l2 --url wss://road.example --key KEY

The contract is in stream.md.
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
    """What has been sent and what has come back.

    Attributes:
        num_sent: frames.
        num_masks: answers with a mask.
        num_problems: answers without.
        num_skipped: frames that a newer one overtook.
        sent_s: when each frame went that is not answered yet, by its number.
        is_complete: no more frames will be sent.
    """

    num_sent: int = 0
    num_masks: int = 0
    num_problems: int = 0
    num_skipped: int = 0
    sent_s: dict[int, float] = field(default_factory=dict)
    is_complete: bool = False

    @property
    def is_answered(self) -> bool:
        """Whether nothing more will come."""
        return self.is_complete and not self.sent_s


def main(
    source: Annotated[str, typer.Argument(help="Video file, or device of a camera.")],
    camera: Annotated[str | None, typer.Option(help="Kind of camera: v4l2, avfoundation, dshow.")] = None,
    url: Annotated[str, typer.Option(help="Of the server.")] = "ws://localhost:5000",
    form: Annotated[str, typer.Option("--format", help="jpeg, png, probability, overlay or json.")] = "jpeg",
    key: Annotated[str | None, typer.Option(help="API key, where the server asks for one.")] = None,
) -> None:
    """Print, once a second, frames sent, masks received, frames skipped, and the age of the last mask."""
    asyncio.run(stream_video(source, camera, f"{url}/stream?format={form}", key))


async def stream_video(source: str, camera: str | None, address: str, key: str | None) -> None:
    """Send and receive at the same time, until the video ends and its last frame is answered."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    # Pictures are compressed already.
    async with connect(address, additional_headers=headers, compression=None, max_size=None) as stream:
        tally = Tally()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send_frames(stream, jpegs(source, camera), tally))
            tasks.create_task(receive_masks(stream, tally))


def jpegs(source: str, camera: str | None) -> Iterator[bytes]:
    """The pictures as JPEG, at the pace at which they were taken."""
    with av.open(source, format=camera) as container:
        started_s = time.monotonic()
        for frame in container.decode(video=0):
            if camera is None and frame.time is not None:
                time.sleep(max(0.0, started_s + frame.time - time.monotonic()))
            buffer = BytesIO()
            Image.fromarray(frame.to_ndarray(format="rgb24")).save(buffer, "JPEG", quality=85)
            yield buffer.getvalue()


async def send_frames(stream: ClientConnection, frames: Iterator[bytes], tally: Tally) -> None:
    """Send every frame; it is the server that skips."""
    while (data := await asyncio.to_thread(next, frames, None)) is not None:
        tally.sent_s[tally.num_sent] = time.monotonic()
        tally.num_sent += 1
        await stream.send(data)
    tally.is_complete = True
    await close_if_answered(stream, tally)


async def receive_masks(stream: ClientConnection, tally: Tally) -> None:
    """Receive until the stream is closed."""
    told_s = time.monotonic()
    async for message in stream:
        header = json.loads(message)
        if "problem" in header:
            tally.num_problems += 1
            print(f"frame {header['frame']}: {header['problem']['detail']}")
        else:
            await stream.recv()  # the mask: here it would be shown
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
    """Close after the last answer."""
    if tally.is_answered:
        await stream.close()


if __name__ == "__main__":
    typer.run(main)
