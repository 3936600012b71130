"""A corpus of uploads: odd ones that are pictures all the same, and bad ones; each made when it is asked for."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

Options = dict[str, Any]  # of httpx.Client.post

MULTIPART = {"content-type": "multipart/form-data; boundary=b"}
PART = b'Content-Disposition: form-data; name="file"; filename="road.png"'
HTML = b"<!doctype html><script>alert(1)</script>"
EXIF = b"Exif\0\0"
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
LARGEST = 0xFFFFFFFF


def file_of(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def left_half_red(size: tuple[int, int]) -> Image.Image:
    picture = Image.new("RGB", size, (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, size[0] // 2, size[1]))
    return picture


def road_of(response: httpx.Response) -> npt.NDArray[np.bool_]:
    """The road of the default answer, a grey JPEG, as an array HW."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/jpeg"
    picture = Image.open(io.BytesIO(response.content))
    assert (picture.format, picture.mode) == ("JPEG", "L")
    return np.asarray(picture) >= 128


WHOLE = file_of(left_half_red((64, 64)))
JPEG = file_of(left_half_red((64, 64)), "JPEG", quality=100)


def file(data: bytes, name: str = "road.png") -> Options:
    return {"files": {"file": (name, data)}}


def form(*parts: tuple[bytes, bytes]) -> bytes:
    """A form byte by byte: headers and data of each part."""
    return b"".join(b"--b\r\n" + head + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + b"--b--\r\n"


def body(content: Any, content_type: str | bytes = MULTIPART["content-type"]) -> Options:
    return {"content": content, "headers": {"content-type": content_type}}


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def spoilt(data: bytes, start: int) -> bytes:
    """With 40 bytes turned over from there on."""
    return data[:start] + bytes(byte ^ 0x5A for byte in data[start : start + 40]) + data[start + 40 :]


def animation(kind: str, **options: Any) -> bytes:
    return file_of(left_half_red((64, 64)), kind, save_all=True, append_images=[NOISE], **options)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, bits: int = 8, colour: int = 2) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def bomb(width: int, height: int, *, num_rows: int | None = None) -> bytes:
    """A PNG of a few kilobytes that unfolds to width x height pixels, or at least claims so."""
    deflate = zlib.compressobj(9)
    row = bytes(1 + width // 8)
    pixels = b"".join(deflate.compress(row) for _ in range(num_rows or height)) + deflate.flush()
    return png(width, height, png_chunk(b"IDAT", pixels), bits=1, colour=0)


def black_pixels() -> bytes:
    """Of an RGB PNG, 64 x 64."""
    return png_chunk(b"IDAT", zlib.compress(bytes(64 * (1 + 3 * 64))))


def long_text() -> bytes:
    return png_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(200_000_000), 1))


def jpeg_with(marker: bytes, data: bytes) -> bytes:
    """`JPEG` with one more segment at its beginning."""
    return JPEG[:2] + marker + struct.pack(">H", len(data) + 2) + data + JPEG[2:]


def jpeg_of_many_scans() -> bytes:
    data = file_of(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + 5000 * last_scan + data[-2:]


def tiff(*tags: tuple[int, int, int, int]) -> bytes:
    """Tags (number, type, count, value) and nothing else."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0)


def grey_tiff(width: int, height: int, strips: tuple[int, int, int, int]) -> bytes:
    size = ((256, 4, 1, width), (257, 4, 1, height))
    return tiff(*size, (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), strips, (278, 4, 1, 64))


# Odd, but a picture: a left half of road.
ODD: dict[str, Callable[[], Options]] = {
    "png named jpg": lambda: {"files": {"file": ("road.jpg", WHOLE, "image/jpeg")}},
    "jpeg named html": lambda: {"files": {"file": ("road.html", JPEG, "text/html")}},
    "no name": lambda: body(form((PART.replace(b"road.png", b""), WHOLE))),
    "a name in latin-1": lambda: body(form((PART.replace(b"road", b"stra\xdfe"), WHOLE))),
    "a name that climbs": lambda: file(WHOLE, "../../etc/passwd"),
    "fields beside the file": lambda: file(WHOLE) | {"data": {"a": "b", "c": "d"}},
    "something after the form": lambda: body(form((PART, WHOLE)) + b"goodbye"),
    "in pieces": lambda: body(bytes([byte]) for byte in form((PART, WHOLE))),
    "page behind the picture": lambda: file(JPEG + HTML),
    "exif of nothing": lambda: file(jpeg_with(b"\xff\xe1", EXIF)),
    "exif cut off": lambda: file(jpeg_with(b"\xff\xe1", EXIF + b"II*\0\x08\0\0\0\xff\xff\x12\x01")),
    "exif beyond the file": lambda: file(jpeg_with(b"\xff\xe1", EXIF + b"II*\0\xf0\xff\xff\xff")),
    "exif of a png that is none": lambda: file(file_of(left_half_red((64, 64)), exif=EXIF + b"neither II nor MM")),
    "exif with orientation 99": lambda: file(
        jpeg_with(b"\xff\xe1", EXIF + tiff((ExifTags.Base.Orientation, 3, 1, 99)))
    ),
    "colour profile that is none": lambda: file(file_of(left_half_red((64, 64)), icc_profile=b"no profile")),
    "colour profile of 9 MB": lambda: file(file_of(left_half_red((64, 64)), "JPEG", icc_profile=bytes(9_000_000))),
    "gif, second frame spoilt": lambda: file(spoilt(animation("GIF"), 3000)),
    "gif, second frame cut off": lambda: file(animation("GIF")[:3000]),
    "webp, second frame spoilt": lambda: file(spoilt(animation("WEBP", lossless=True), 3000)),
    "png, second frame spoilt": lambda: file(spoilt(animation("PNG"), 3000)),
}

# What is sent, and the status that it gets.
BAD: dict[str, tuple[Callable[[], Options], int]] = {
    # No picture.
    "text": (lambda: file(b"not a picture\n"), 415),
    "pdf": (lambda: file(b"%PDF-1.7\n1 0 obj"), 415),
    "eps": (lambda: file(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), 415),
    "svg": (lambda: file(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 415),
    "html": (lambda: file(HTML), 415),
    "gif that is a script": (lambda: file(b"GIF89a/*" + HTML + b"*/=1"), 415),
    "heic": (lambda: file(b"\0\0\0\x18ftypheic" + bytes(99)), 415),
    "zip": (lambda: file(b"PK\3\4" + bytes(99)), 415),
    "no bytes": (lambda: file(b""), 400),
    # Half a picture.
    **{
        f"half a {kind}": ((lambda kind=kind: file(half(file_of(NOISE, kind)))), 400)  # type: ignore[misc]
        for kind in ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
    },
    "half an AVIF": (lambda: file(half(file_of(NOISE, "AVIF"))), 415),  # not recognised any more
    # Pictures that lie.
    "png that is less wide than it says": (lambda: file(png(999, 64, black_pixels())), 400),
    "png of no size": (lambda: file(png(0, 0, black_pixels())), 415),
    "png without pixels": (lambda: file(png(64, 64)), 400),
    "png without its palette": (lambda: file(png(64, 64, black_pixels(), colour=3)), 400),
    "tiff that is elsewhere": (lambda: file(b"II*\0" + struct.pack("<I", LARGEST - 255) + bytes(50)), 415),
    "tiff whose pixels are elsewhere": (lambda: file(grey_tiff(64, 64, (273, 4, 1, LARGEST // 2))), 400),
    "tiff of 4 billion strips": (lambda: file(grey_tiff(64, 64, (273, 4, LARGEST, 8))), 415),
    "ppm of a negative size": (lambda: file(b"P3 -5 5 255 1 2 3"), 415),
    "ppm of an endless number": (lambda: file(b"P3 " + b"9" * 9999 + b" 1 255 0"), 400),
    "qoi that ends early": (lambda: file(b"qoif" + struct.pack(">II", 7000, 7000) + b"\3\0" + bytes(20)), 400),
    # Too much.
    "60 MB": (lambda: file(bytes(60_000_000)), 413),
    "100 megapixels": (lambda: file(bomb(10_000, 10_000)), 413),
    "10 gigapixels": (lambda: file(bomb(100_000, 100_000, num_rows=64)), 413),
    "too wide for a jpeg": (lambda: file(bomb(70_000, 8)), 413),
    "tiff of 16 exapixels": (lambda: file(grey_tiff(LARGEST, LARGEST, (273, 4, 1, 8))), 413),
    "png with a text of 200 MB": (lambda: file(png(64, 64, long_text(), black_pixels())), 400),
    "jpeg of 5000 scans": (lambda: file(jpeg_of_many_scans()), 400),
    # No form, or not the right one.
    "empty body": (dict, 422),
    "empty form": (lambda: body(b""), 422),
    "wrong field": (lambda: {"files": {"image": WHOLE}}, 422),
    "two files": (lambda: {"files": [("file", WHOLE), ("file", WHOLE)]}, 400),
    "text field": (lambda: {"data": {"file": "road.png"}}, 422),
    "raw body": (lambda: body(WHOLE, "image/png"), 422),
    "json": (lambda: {"json": {"file": "road.png"}}, 422),
    "form without boundary": (lambda: body(b"x", "multipart/form-data"), 400),
    "form of another boundary": (lambda: body(form((PART, WHOLE)), "multipart/form-data; boundary=c"), 400),
    "boundary that is not ascii": (lambda: body(form((PART, WHOLE)), b"multipart/form-data; boundary=\xff"), 400),
    "form cut off": (lambda: body(b'--b\r\nContent-Disposition: form-data; name="fi'), 422),
    "form without its end": (lambda: body(form((PART, WHOLE))[:-8]), 422),
    "part without headers": (lambda: body(form((b"", WHOLE))), 400),
    "part without a name": (lambda: body(form((PART.replace(b'name="file"; ', b""), WHOLE))), 400),
    "part with a name that is not utf-8": (lambda: body(form((PART.replace(b'"file"', b'"f\xff"'), WHOLE))), 422),
    "part of 10000 headers": (lambda: body(form((PART + b"\r\nX: y" * 10_000, WHOLE))), 400),
    "part with a header of 1 MB": (lambda: body(form((PART + b"\r\nX: " + b"y" * 1_000_000, WHOLE))), 400),
    "part in base64": (
        lambda: body(form((PART + b"\r\nContent-Transfer-Encoding: base64", b"iVBORw0KGgo="))),
        415,
    ),
    "5000 fields": (lambda: body(form(*[(PART.partition(b"; filename")[0], b"")] * 5000)), 400),
}
