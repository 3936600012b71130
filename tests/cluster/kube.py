"""The cluster that kubectl uses, through kubectl itself."""

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.seaweed import free_ports

POLL_S = 0.5
COMMAND_TIMEOUT_S = 900


class KubeError(Exception):
    """A command failed, or something did not happen in time."""


def expect(holds: bool, otherwise: str) -> None:
    """Raise unless something holds.

    Raises:
        KubeError: it does not; `otherwise` is the message.
    """
    if not holds:
        raise KubeError(otherwise)


def run(*words: str | Path, given: str | None = None) -> str:
    """Run a command; its standard output.

    Raises:
        KubeError: it failed; the message has its output.
    """
    command = [str(word) for word in words]
    done = subprocess.run(command, check=False, input=given, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    if done.returncode:
        raise KubeError(f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def kubectl(*words: str | Path, given: str | None = None) -> str:
    """Run `kubectl`; its standard output."""
    return run("kubectl", *words, given=given)


def get(*words: str) -> Any:
    """The parsed output of `kubectl get -o json`."""
    return json.loads(kubectl("get", *words, "--output=json"))


def apply(*objects: dict[str, Any]) -> None:
    """Apply objects."""
    kubectl("apply", "--filename=-", given="\n---\n".join(map(json.dumps, objects)))


def wait_until(what: str, happened: Callable[[], Any], timeout_s: float) -> float:
    """Wait until something has happened; the seconds that it took.

    A check that fails is repeated, because an object may not exist yet.

    Raises:
        KubeError: it did not happen in time.
    """
    start_s = time.monotonic()
    last: object = None
    while time.monotonic() - start_s < timeout_s:
        try:
            if happened():
                return time.monotonic() - start_s
            last = None
        except (KubeError, KeyError, IndexError) as error:
            last = error
        time.sleep(POLL_S)
    raise KubeError(f"{what}: not after {timeout_s:.0f} s" + (f" ({last})" if last else ""))


def pods(namespace: str, selector: str) -> list[dict[str, Any]]:
    """The pods that are not being deleted."""
    found = get("pods", f"--namespace={namespace}", f"--selector={selector}")["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether the pod has passed its readiness probes."""
    conditions = pod["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def reached_by_a_stranger(image: str, open_place: str, closed_places: list[str]) -> list[str]:
    """The places (ADDRESS/PORT) to which a pod in the namespace default can open a connection.

    It tries the open one first and repeatedly, because a new pod is not let into the network at once.
    """
    reach = 'reach() { timeout 3 bash -c "< /dev/tcp/$1" 2> /dev/null && echo $1; }'
    script = f"{reach}; for _ in {{1..20}}; do reach {open_place} && break; sleep 1; done; "
    script += "".join(f"reach {place}; " for place in closed_places) + "true"
    namespace, options = "--namespace=default", ("--restart=Never", "--image-pull-policy=IfNotPresent")
    kubectl("run", "stranger", namespace, f"--image={image}", *options, "--command", "--", "bash", "-c", script)
    try:
        kubectl("wait", "pod/stranger", namespace, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=300s")
        told = kubectl("logs", "stranger", namespace)
    finally:
        kubectl("delete", "pod", "stranger", namespace, "--wait=false")
    return [line for line in told.splitlines() if line in (open_place, *closed_places)]


def node_address() -> str:
    """The address of the node, on which NodePort services listen."""
    addresses = get("nodes")["items"][0]["status"]["addresses"]
    return next(str(address["address"]) for address in addresses if address["type"] == "InternalIP")


@contextmanager
def forwarded(namespace: str, service: str, port: int) -> Iterator[int]:
    """A port of this machine that is forwarded to a service in the cluster."""
    (local_port,) = free_ports(1)
    words = ["kubectl", "port-forward", f"--namespace={namespace}", f"service/{service}", f"{local_port}:{port}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            if "Forwarding" not in process.stdout.readline():
                raise KubeError(f"cannot forward a port to {service}: {process.stdout.read()}")
            yield local_port
        finally:
            process.terminate()
