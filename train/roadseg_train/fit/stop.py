"""SIGTERM and Ctrl-C as a request to save and stop."""

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """A context, for the main thread, in which the first of the signals sets `requested`; a second one works as usual.

    Preemption, deleting a pod and `ray job stop` all send SIGTERM.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.exit_code = 0  # after the signal 128 + its number, as shells report it: 143 for SIGTERM, 130 for SIGINT
        self._before = {number: signal.getsignal(number) for number in SIGNALS}

    def __enter__(self) -> "StopSignals":
        self.listen()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._restore()

    def listen(self) -> None:
        """Install the handlers, again if a library has replaced them."""
        # Ray's C++ part passes a SIGTERM on, but sets an alarm that aborts the process three seconds later.
        signal.alarm(0)
        if not self.requested.is_set():
            for number in SIGNALS:
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.exit_code = 128 + number
        self.requested.set()
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
