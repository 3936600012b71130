"""SIGTERM and Ctrl-C as a wish to stop, which the run obeys when it has saved."""

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Notes the first of the signals while it is entered; a second one has its usual effect, at once.

    For the main thread, as all signal handlers are. Preemption, the deletion of a pod and `ray job stop` send SIGTERM.

    Attributes:
        asked: set by the first signal.
    """

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._signal: signal.Signals | None = None
        self._before = {number: signal.getsignal(number) for number in SIGNALS}

    def __enter__(self) -> "StopSignals":
        self.listen()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._put_back()

    def listen(self) -> None:
        """Take the signals, again where a library has taken them meanwhile."""
        # Ray's C++ part lets a SIGTERM through, but has the process aborted three seconds later, by an alarm.
        signal.alarm(0)
        if not self.asked.is_set():
            for number in SIGNALS:
                signal.signal(number, self._note)

    @property
    def exit_code(self) -> int:
        """128 + the signal, as shells report a process that it ended: 143 for SIGTERM, 130 for SIGINT."""
        assert self._signal is not None
        return 128 + self._signal

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signal = signal.Signals(number)
        self.asked.set()
        self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
