"""Upload street.jpg and compare the mask with road.png: python upload.py http://service:8000.

If the service needs an API key, set `API_KEYS_FILE` to the file of keys. Needs only what the serve image contains.
"""

import io
import os
import sys
import uuid
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent
TIMEOUT_S = 60
# The bundled models reach at least 0.93 on this street; a mask that is all road gets 0.43, an empty one 0.
LEAST_IOU = 0.85


def main(url: str) -> None:
    """Exit with a message if the mask is wrong."""
    picture = (FOLDER / "street.jpg").read_bytes()
    road_HW = np.asarray(Image.open(FOLDER / "road.png").convert("L")) > 127
    mask_HW = np.asarray(Image.open(io.BytesIO(upload(f"{url}/upload?format=png", picture)))) > 127
    if mask_HW.shape != road_HW.shape:
        sys.exit(f"the mask is {mask_HW.shape}, but the picture is {road_HW.shape} (height, width)")
    iou = (mask_HW & road_HW).sum() / (mask_HW | road_HW).sum()
    if iou < LEAST_IOU:
        sys.exit(f"the mask does not match the road: IoU {iou:.3f} instead of at least {LEAST_IOU}")
    print(f"the mask matches the road: IoU {iou:.3f}")


def upload(url: str, picture: bytes) -> bytes:
    """The body of the response to a picture."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="street.jpg"\r\n\r\n'
    body = head.encode() + picture + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    if key := first_key():
        headers["X-API-Key"] = key
    with urlopen(Request(url, data=body, headers=headers), timeout=TIMEOUT_S) as answer:  # noqa: S310 the URL is http
        mask: bytes = answer.read()
    return mask


def first_key() -> str | None:
    """The first API key in the file, or None if there is no file."""
    path = os.environ.get("API_KEYS_FILE")
    if path is None:
        return None
    lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return next(line.split(",")[0].strip() for line in lines if line and not line.startswith("#"))


if __name__ == "__main__":
    main(sys.argv[1])
