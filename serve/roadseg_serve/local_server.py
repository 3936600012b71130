"""A server on this machine: start Ray and the graph, and stop both."""

import asyncio
import errno
import logging
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import ray
from ray import serve

from roadseg_serve.app import build
from roadseg_serve.errors import PortInUseError, StartError
from roadseg_serve.http.keys import read_keys
from roadseg_serve.settings import AppArgs, LogFormat, listens_itself
from roadseg_serve.stop import POLL_S, StopSignals

APPLICATION = "roadseg"
ANSWER_TIMEOUT_S = 5.0
RELEASE_TIMEOUT_S = 30.0
WELCOME = """
roadseg is ready at {url}
  try it:  curl -F file=@road.png {url}/upload -o mask.jpg
  or open  {url}  in a browser
  stop it: Ctrl-C
"""


def serve_until_stopped(
    args: AppArgs, *, host: str, port: int, log_format: LogFormat, metrics_port: int | None
) -> None:
    """Start Ray and the graph, wait for SIGINT, SIGTERM or SIGHUP, then stop both.

    A signal takes effect between the steps, because Ray does not survive an interruption during its start or stop.
    Without `metrics_port`, Prometheus finds the metrics at any free port.

    Raises:
        StartError: the text says what to do; nothing is left running.
    """
    check_port(host, port)
    # Find a bad model and bad keys before starting anything.
    application = build(args)
    read_keys(args.gate)
    log_config = logging_config(log_format)
    print(f"starting {args.model} ...", flush=True)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    stop = StopSignals()
    if listens_itself(args):
        _wait_until_free(host, port, stop)
    # In a thread, Ray cannot install its own SIGTERM handler, which would exit during the start and leave Ray's agents
    # running. The thread lives until the end, because Ray's processes die with it.
    with ThreadPoolExecutor(max_workers=1) as ray_thread:
        try:
            ray_thread.submit(_start_ray, args.num_cpus, metrics_port).result()
            stop.listen()
            if not stop.asked:
                http = {"host": host, "port": free_port(host) if listens_itself(args) else port}
                serve.start(proxy_location="HeadOnly", http_options=http, logging_config=log_config)
                target = serve.RunTarget(application, name=APPLICATION, logging_config=log_config)
                serve.run_many([target], wait_for_applications_running=False)
                url = f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{port}"  # noqa: S104
                if _wait_until_ready(url, stop):
                    print(WELCOME.format(url=url), flush=True)
                    stop.wait()
                    _stop_streams()
                print("\nstopping ...", flush=True)
                serve.delete(APPLICATION)  # finishes the requests in progress
        finally:
            ray.shutdown()
    _wait_until_released(host, port)
    print("stopped", flush=True)


def logging_config(log_format: LogFormat) -> dict[str, Any]:
    """Ray Serve's `logging_config`, without its own access log: `http.access_log` writes a better one."""
    return {"encoding": log_format.upper(), "enable_access_log": False}


def _start_ray(num_cpus: int, metrics_port: int | None) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            _metrics_export_port=metrics_port,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray raises many unrelated types
        reason = str(error).partition(".")[0]
        raise StartError(f"Ray did not start ({reason}); is this machine very busy? Try again") from error


def check_port(host: str, port: int) -> None:
    """Check that the server can listen, at least after `_wait_until_free`.

    Raises:
        PortInUseError: another program does.
        StartError: this machine cannot listen there.
    """
    try:
        is_in_use = is_held(host, port) and _is_listened_to(host, port)
    except OSError as error:
        raise StartError(f"cannot listen on {host} port {port} ({error}); check --host and --port") from error
    if is_in_use:
        raise PortInUseError(f"port {port} is in use by another program; stop it, or choose another port with --port")


def free_port(host: str) -> int:
    """A free port for Ray Serve's proxy, which starts even if nobody needs it."""
    with socket.create_server((host, 0), family=_family(host)) as listener:
        return int(listener.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _wait_until_ready(url: str, stop: StopSignals) -> bool:
    """Wait until the server answers; False if it is stopped before. Raises StartError if the graph cannot start."""
    while not stop.pause():
        application = serve.status().applications[APPLICATION]
        if application.status == "DEPLOY_FAILED":
            # A deployment's message ends with the exception of its replica.
            messages = [deployment.message.strip() for deployment in application.deployments.values()]
            reasons = "; ".join(message.splitlines()[-1] for message in messages if message)
            raise StartError(f"the graph did not start: {reasons} (more in /tmp/ray/session_latest/logs/serve)")
        if application.status == "RUNNING" and _answers(f"{url}/health"):
            return True
    return False


def _wait_until_released(host: str, port: int) -> None:
    """Wait until the port is free for the next start; Ray does not wait for its replicas to exit."""
    deadline_s = time.monotonic() + RELEASE_TIMEOUT_S
    while _is_listened_to(host, port):
        if time.monotonic() > deadline_s:
            raise PortInUseError(f"port {port} is still in use by the server that was just stopped; kill that process")
        time.sleep(POLL_S)


def _wait_until_free(host: str, port: int, stop: StopSignals) -> None:
    """Wait for the system to release the port, which it holds for a minute after the last server closed connections.

    SO_REUSEADDR would avoid this, but replicas that listen themselves do not set it.
    """
    if is_held(host, port):
        print(f"waiting for port {port}, which stays reserved for up to a minute after the last server ...", flush=True)
    while is_held(host, port) and not stop.pause():
        pass


def is_held(host: str, port: int) -> bool:
    """Whether listening on the port needs SO_REUSEADDR, because a server uses it or did within the last minute.

    Raises:
        OSError: this machine cannot listen there.
    """
    with socket.socket(_family(host)) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
    return False


def _is_listened_to(host: str, port: int) -> bool:
    with socket.socket(_family(host)) as probe:
        return probe.connect_ex((host, port)) == 0


def _stop_streams() -> None:
    """Close the WebSockets, which Ray Serve would wait for like for any request in progress."""

    async def tell_all_replicas() -> None:
        replicas = serve.get_app_handle(APPLICATION).broadcast("stop_streams")
        await replicas.results_async(return_exceptions=True)

    # If the replica listens itself, handles run in the event loop of their caller and complain when it ends.
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    with suppress(TimeoutError):  # a replica that hangs is killed soon, together with its streams
        asyncio.run_coroutine_threadsafe(tell_all_replicas(), loop).result(ANSWER_TIMEOUT_S)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT_S) as response:  # noqa: S310 our own http URL
            return bool(response.status == HTTPStatus.OK)
    except OSError:
        return False
