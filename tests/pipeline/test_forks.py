"""Parts in forked processes: results in order, errors and deaths told, nothing pickled on the way there."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from unlearn.pipeline import forks
from unlearn.values.errors import Diverged, UserError

pytestmark = pytest.mark.skipif(not forks.safe(), reason="forks are for Linux without an accelerator")


def test_results_come_in_order_from_processes_of_their_own():
    slow = [0.2, 0.0, 0.1]
    found = forks.forked(lambda k: (time.sleep(slow[k]), k, os.getpid()), range(3))  # a closure, which no pickle takes
    assert [k for _, k, _ in found] == [0, 1, 2]
    assert len({pid for *_, pid in found} | {os.getpid()}) == 4


def test_tensors_come_back_and_a_fork_of_many_threads_computes_on_one():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    large = torch.randn(512, 512, dtype=torch.float64)
    here = large @ large  # starts the threads that a fork does not have
    weights = torch.ones(512, dtype=torch.float64, requires_grad=True)
    (large @ weights).square().sum().backward()  # and autograd
    try:

        def work(_):
            (slope,) = torch.autograd.grad((large @ weights).square().sum(), weights)
            return torch.get_num_threads(), large @ large, slope

        for threads, product, slope in forks.forked(work, range(2)):
            assert threads == 1
            torch.testing.assert_close(product, here, rtol=1e-12, atol=1e-10)
            torch.testing.assert_close(slope, weights.grad, rtol=1e-12, atol=1e-10)
    finally:
        torch.set_num_threads(before)


def test_what_the_work_raises_is_raised_here():
    def work(k):
        if k:
            raise Diverged(k, 0.5)

    with pytest.raises(Diverged, match="at step 2") as caught:
        forks.forked(work, [0, 2, 3])
    assert caught.value.step == 2


def test_a_process_that_is_killed_is_one_line():
    with pytest.raises(UserError, match="was killed"):
        forks.forked(lambda _: os.kill(os.getpid(), signal.SIGKILL), [0, 1])


PARENT = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored by what it starts in the background
from unlearn.pipeline import forks
def work(_):
    print(os.getpid(), flush=True)
    time.sleep(60)
forks.forked(work, [0, 1])
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(how):
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(how)
        parent.wait(20)
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_result_that_cannot_be_sent_says_so():
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError), match="pickle") as caught:
        forks.forked(lambda _: threading.Lock(), [0])
    assert "_child" in "".join(caught.value.__notes__)  # where it happened, over there


def test_a_process_that_cannot_start_ends_the_others(monkeypatch):
    started = []

    def start(self):
        if started:
            raise OSError("no more processes")
        started.append(self)
        original(self)

    kind = multiprocessing.get_context("fork").Process
    original = kind.start
    monkeypatch.setattr(kind, "start", start)
    with pytest.raises(OSError, match="no more processes"):
        forks.forked(time.sleep, [60, 60])
    assert started[0].exitcode == -signal.SIGTERM
