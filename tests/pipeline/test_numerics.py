"""How many threads a run takes."""

from types import SimpleNamespace

import pytest
import torch

from unlearn.pipeline import device
from unlearn.pipeline.device import available_threads
from unlearn.pipeline.numerics import settle


@pytest.fixture(autouse=True)
def as_before():
    threads, flags = torch.get_num_threads(), torch.backends.cudnn
    before = flags.deterministic, flags.benchmark, flags.allow_tf32
    yield
    torch.set_num_threads(threads)
    flags.deterministic, flags.benchmark, flags.allow_tf32 = before


@pytest.mark.parametrize(
    ("dim", "asked", "given", "threads"),
    [(10, None, "3", 1), (300_000, None, "3", 3), (300_000, 2, "3", 2), (10, 2, "3", 2)],
)
def test_small_networks_take_one_thread_and_others_what_there_is(monkeypatch, dim, asked, given, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    network = SimpleNamespace(layout=SimpleNamespace(dim=dim))
    settle(SimpleNamespace(network=network, config=SimpleNamespace(threads=asked)))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("given", "threads"), [("4", 4), ("3,1", 3), ("0", 7), ("x", 7), ("", 7)])
def test_what_launchers_give_counts_if_it_is_a_number(monkeypatch, given, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(device, "cpu_count", lambda: 7)
    assert available_threads() == threads
