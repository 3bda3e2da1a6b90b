import pytest
import torch
from torchvision.transforms import functional as TF

from unlearn.data.augmentation import Augmentation, Draws, augment
from unlearn.values.errors import UserError
from unlearn.values.streams import generator

CPU = torch.device("cpu")


def images(n=6, channels=3, height=5, width=7):
    return torch.randint(256, (n, channels, height, width), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_equals_torchvisions_pad_crop_and_flip():
    raw = images(40)
    draws = Augmentation("crop_flip", padding=2).draw(40, generator(0, "augmentation", 0), CPU)
    expected = []
    for image, top, left, flip in zip(raw, draws.top.tolist(), draws.left.tolist(), draws.flip.tolist(), strict=True):
        crop = TF.crop(TF.pad(image, [2, 2]), top, left, 5, 7)
        expected.append(TF.hflip(crop) if flip else crop)
    assert torch.equal(augment(raw, draws), torch.stack(expected))
    assert augment(raw, draws).dtype == torch.uint8
    assert augment(raw, draws).is_contiguous()


def test_the_central_crop_without_a_flip_changes_nothing():
    raw = images()
    centre = torch.full((6,), 3)
    assert torch.equal(augment(raw, Draws(centre, centre, torch.zeros(6, dtype=torch.bool), 3)), raw)
    assert torch.equal(augment(raw, Draws(centre, centre, torch.ones(6, dtype=torch.bool), 3)), raw.flip(-1))


def test_a_point_looks_the_same_in_every_batch():
    raw = images(20)
    draws = Augmentation("crop_flip").draw(20, generator(3, "augmentation", 1), CPU)
    whole = augment(raw, draws)
    for batch in (torch.tensor([4]), torch.tensor([7, 4, 0]), torch.arange(19, -1, -1)):
        assert torch.equal(augment(raw[batch], draws.take(batch)), whole[batch])


def test_draws_are_those_of_the_stream_and_cover_every_crop():
    kind = Augmentation("crop_flip", padding=2)
    first, again, other = (kind.draw(500, generator(0, "augmentation", epoch), CPU) for epoch in (0, 0, 1))
    assert torch.equal(first.top, again.top)
    assert torch.equal(first.left, again.left)
    assert torch.equal(first.flip, again.flip)
    assert not torch.equal(first.top, other.top)
    assert set(zip(first.top.tolist(), first.left.tolist(), strict=True)) == {
        (a, b) for a in range(5) for b in range(5)
    }
    assert first.flip.any()
    assert not first.flip.all()


def test_drawing_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    Augmentation("crop_flip").draw(10, generator(0, "augmentation", 0), CPU)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_none_draws_nothing():
    source = generator(0, "augmentation", 0)
    before = source.get_state()
    assert Augmentation("none").draw(10, source, CPU) is None
    assert torch.equal(source.get_state(), before)


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match=r"dataset\.augmentation=flip: choose one of none, crop_flip"):
        Augmentation("flip")
