import signal
import subprocess
import sys

import pytest

# In a process of its own, as what is to be seen is that it does not hang.
WAITER = """
import os, signal, threading
from roadseg_serve import stop as module

module.POLL_S = 1e-4
stop = module.StopSignals()
main_may_go = threading.Event()

def send():
    while not main_may_go.is_set():
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=send, daemon=True).start()
for _ in range(1000):
    stop.asked = False
    stop.wait()
main_may_go.set()
print("woken", flush=True)
"""


def test_any_number_of_signals_wakes_it() -> None:
    done = subprocess.run([sys.executable, "-c", WAITER], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "woken\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_asks_to_stop(number: signal.Signals) -> None:
    code = f"""
import os
from roadseg_serve.stop import StopSignals
stop = StopSignals()
assert not stop.pause()
os.kill(os.getpid(), {int(number)})
stop.wait()
assert stop.asked and stop.pause()
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
