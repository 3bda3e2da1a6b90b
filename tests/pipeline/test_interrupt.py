"""Signals are heard, kept for the next step, and passed on to whoever listened before."""

import os
import signal

import pytest

from unlearn.pipeline.interrupt import SIGNALS, Interrupted, Watch


def test_a_signal_is_due_at_once_and_the_handlers_come_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Watch(60) as watch:
        assert not watch.due()
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.due()
        with pytest.raises(Interrupted) as stopped:
            watch.kept("here")
    assert stopped.value.code == 128 + signal.SIGTERM
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_whoever_listened_before_hears_of_it_after_the_state_is_kept():
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        with Watch(60) as watch:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert heard == []
            with pytest.raises(Interrupted):
                watch.kept("here")
        assert heard == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_the_first_of_two_signals_is_passed_on():
    heard = []
    numbers = (signal.SIGUSR2, signal.SIGTERM)
    before = [signal.signal(number, lambda number, frame: heard.append(number)) for number in numbers]
    try:
        with Watch(60) as watch:
            for number in numbers:
                os.kill(os.getpid(), number)
            with pytest.raises(Interrupted) as stopped:
                watch.kept("here")
        assert heard == [signal.SIGUSR2]
        assert stopped.value.code == 128 + signal.SIGUSR2
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_a_second_signal_of_a_kind_acts_at_once():
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        with Watch(60):
            for count in (0, 1):
                os.kill(os.getpid(), signal.SIGUSR1)
                assert heard == [signal.SIGUSR1] * count
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_comes_too_late_stops_what_follows():
    with Watch(60) as watch:
        watch.stop_if_asked("not yet")
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted) as stopped:
        watch.stop_if_asked("now")
    assert stopped.value.code == 128 + signal.SIGTERM


def test_minutes_are_minutes_and_begin_again_once_the_state_is_kept(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("unlearn.pipeline.interrupt.time.monotonic", lambda: now[0])
    watch = Watch(10, since=now[0])
    for seconds, due in ((599, False), (600, True)):
        now[0] = 1000.0 + seconds
        assert watch.due() == due
    watch.kept("here")
    assert not watch.due()
    now[0] += 600
    assert watch.due()


def test_time_makes_it_due_and_goes_on():
    watch = Watch(1e-9)
    assert watch.due()
    watch.kept("here")  # nobody asked to stop
