import os
import signal

import pytest

from roadseg_train.fit.stop import StopSignals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_is_noted_and_a_second_one_obeyed(number: int, code: int) -> None:
    before = signal.getsignal(number)
    with StopSignals() as stop:
        assert signal.getsignal(number) != before
        assert not stop.requested.is_set()
        os.kill(os.getpid(), number)
        assert stop.requested.is_set()
        assert stop.exit_code == code
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


def test_handlers_are_put_back_where_no_signal_came() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals():
        pass
    assert signal.getsignal(signal.SIGTERM) == before
