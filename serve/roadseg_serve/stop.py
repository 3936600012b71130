"""Ctrl-C and SIGTERM as a wish to stop."""

import signal
import time
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL_S = 0.1


class StopSignals:
    """Notes the signals, any number of them; for the main thread, as all signal handlers are.

    There is no lock in it, so no threading.Event: the handler runs in the midst of what the main thread does, and would
    wait for ever for a lock that this very thread holds, as it does for a moment whenever it has been woken.

    Attributes:
        asked: whether there was one.
    """

    def __init__(self) -> None:
        self.asked = False
        self.listen()

    def listen(self) -> None:
        """Take the signals, again where a library has taken them meanwhile."""
        for number in SIGNALS:
            signal.signal(number, self._note)
        # Ray's C++ part, once it runs, lets a SIGTERM through but aborts the process three seconds later, by an alarm.
        signal.alarm(0)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True

    def pause(self) -> bool:
        """Wait for a moment; whether there was a signal so far."""
        if not self.asked:
            time.sleep(POLL_S)
        return self.asked

    def wait(self) -> None:
        """Wait for one."""
        while not self.pause():
            pass
