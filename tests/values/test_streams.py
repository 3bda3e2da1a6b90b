import pytest
import torch

from unlearn.values.streams import STREAMS, generator, seed_for


def test_streams_differ_by_seed_name_and_key():
    seeds = {
        seed_for(seed, stream, *keys) for seed in (0, 1) for stream in STREAMS for keys in ((), (0,), (1,), (0, 1))
    }
    assert len(seeds) == 2 * len(STREAMS) * 4


def test_drawing_from_one_stream_does_not_move_another():
    alone = torch.rand(3, generator=generator(0, "order"))
    torch.rand(1000, generator=generator(0, "probe"))
    assert torch.rand(3, generator=generator(0, "order")).equal(alone)


def test_an_unknown_stream_is_an_error():
    with pytest.raises(ValueError, match="ordr"):
        seed_for(0, "ordr")
