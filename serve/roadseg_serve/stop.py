"""Turns Ctrl-C, SIGTERM and SIGHUP into a flag that the main thread checks."""

import signal
import time
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL_S = 0.1


class StopSignals:
    """Records the signals; must be used in the main thread, like all signal handlers.

    It polls a plain flag instead of waiting for a threading.Event: the handler interrupts the main thread anywhere, and
    would deadlock if that held the event's lock.
    """

    def __init__(self) -> None:
        self.asked = False  # whether there was a signal
        self.listen()

    def listen(self) -> None:
        """Install the handlers, again if a library has replaced them."""
        for number in SIGNALS:
            signal.signal(number, self._record)
        # After a SIGTERM, Ray's C++ code sets an alarm that aborts the process three seconds later.
        signal.alarm(0)

    def _record(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True

    def pause(self) -> bool:
        """Sleep for `POLL_S` unless there was a signal; returns whether there was one."""
        if not self.asked:
            time.sleep(POLL_S)
        return self.asked

    def wait(self) -> None:
        """Wait for a signal."""
        while not self.pause():
            pass
