import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unlearn.models.cnn import CNN
from unlearn.models.resnet import ResNet
from unlearn.models.weights import load_weights
from unlearn.values.errors import UserError

State = dict[str, Tensor]


class Attack:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("attacked",)


def build(seed: int, classes: int = 3) -> nn.Module:
    return CNN("cnn", None, (4, 4), "relu", "batch").build(torch.Size((1, 8, 8)), classes, seed)


def trained() -> State:
    """A state dict that differs from a new model's in every entry, buffers too."""
    draws = torch.Generator().manual_seed(5)
    state = build(seed=0).state_dict()
    return {
        name: torch.rand(entry.shape, generator=draws) + 0.5 if entry.is_floating_point() else torch.tensor(12)
        for name, entry in state.items()
    }


def counted(state: State) -> State:
    return {name: entry for name, entry in state.items() if not name.endswith("num_batches_tracked")}


def assert_loaded(module: nn.Module, expected: State) -> None:
    own = module.state_dict()
    assert all(torch.equal(own[name], entry) for name, entry in counted(expected).items())


def refused(path: Path, module: nn.Module) -> str:
    """Load what must be refused; give the message, and check that it is one line and that nothing changed."""
    before = {name: entry.clone() for name, entry in module.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(module, str(path))
    after = module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    message = str(caught.value)
    assert message.startswith(f"model.weights={path}: ")
    assert "\n" not in message
    return message.removeprefix(f"model.weights={path}: ")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pt"


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".PTH"])
def test_a_bare_state_dict(tmp_path: Path, suffix: str) -> None:
    path, module = tmp_path / f"weights{suffix}", build(seed=1)
    torch.save(trained(), path)
    load_weights(module, str(path))
    assert_loaded(module, trained())


def test_safetensors(tmp_path: Path) -> None:
    path, module = tmp_path / "weights.safetensors", build(seed=1)
    save_file(trained(), path)
    load_weights(module, str(path))
    assert_loaded(module, trained())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"epoch": 3, "state_dict": s, "best": torch.tensor(0.9)},
        lambda s: {"model_state_dict": s, "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]}},
        lambda s: {"momentum": {"x": torch.ones(2)}, "model": s},
        lambda s: {"net": s, "acc": 95.1, "epoch": 200},
        lambda s: {"weights": s},
        lambda s: {"args": None, "teacher": s},
        lambda s: {**s, "epoch": 3},
        lambda s: {f"module.{name}": entry for name, entry in s.items()},
        lambda s: {"net": {f"_orig_mod.module.{name}": entry for name, entry in s.items()}},
        lambda s: {f"module._orig_mod.{name}": entry for name, entry in s.items()},
        lambda s: dict(reversed(list(s.items()))),
        counted,
    ],
    ids=[
        "state_dict",
        "model_state_dict",
        "model",
        "net",
        "weights",
        "other key",
        "numbers beside",
        "parallel",
        "compiled parallel",
        "parallel compiled",
        "other order",
        "no counters",
    ],
)
def test_the_usual_wrappings(path: Path, wrap: Callable[[State], dict[str, object]]) -> None:
    module = build(seed=1)
    torch.save(wrap(trained()), path)
    load_weights(module, str(path))
    assert_loaded(module, trained())


def test_other_names_are_matched_by_order(path: Path) -> None:
    module = build(seed=1)
    torch.save({f"layer{i}.{n.rpartition('.')[2]}": t for i, (n, t) in enumerate(trained().items())}, path)
    load_weights(module, str(path))
    assert_loaded(module, trained())


def test_other_names_in_a_file_without_order(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({f"net.{name}": entry for name, entry in trained().items()}, path)
    assert "'net.0.weight', which the model does not, and .safetensors keeps no order" in refused(path, build(seed=1))


def test_counters_on_the_file_side_alone_are_left_out(path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    linear = {"fc.weight": torch.ones(2, 2), "fc.num_batches_tracked": torch.tensor(4), "fc.bias": torch.ones(2)}
    torch.save(linear, path)
    load_weights(module, str(path))
    assert module[0].bias.tolist() == [1, 1]


def test_a_classic_cifar_resnet_18(path: Path) -> None:
    spec, shape = ResNet("resnet18", None, 18), torch.Size((3, 32, 32))
    source = spec.build(shape, 10, seed=4)
    for buffer in source.buffers():
        buffer.add_(torch.arange(buffer.numel()).reshape(buffer.shape).to(buffer.dtype))
    renamed = {
        name.replace("downsample", "shortcut").replace("fc.", "linear."): entry
        for name, entry in source.state_dict().items()
    }
    assert {"layer2.0.shortcut.0.weight", "layer2.0.shortcut.1.running_var", "linear.bias"} < renamed.keys()
    torch.save({"net": {f"module.{name}": entry for name, entry in renamed.items()}, "acc": 95.0, "epoch": 9}, path)
    module = spec.build(shape, 10, seed=5)
    load_weights(module, str(path))
    assert_loaded(module, source.state_dict())
    inputs = torch.randn(2, *shape)
    assert torch.equal(module.eval()(inputs), source.eval()(inputs))


def test_values_take_the_dtype_of_the_module(path: Path) -> None:
    module = build(seed=1)
    torch.save({name: entry.half() for name, entry in trained().items()}, path)
    load_weights(module, str(path))
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    torch.testing.assert_close(module.state_dict()["0.weight"], trained()["0.weight"], rtol=1e-3, atol=1e-3)


def test_the_module_keeps_its_own_tensors(path: Path) -> None:
    module = build(seed=1)
    before = module[0].weight
    torch.save(trained(), path)
    load_weights(module, str(path))
    assert module[0].weight is before
    assert before.requires_grad


def test_another_shape_under_the_same_names(path: Path) -> None:
    torch.save(trained(), path)
    message = refused(path, build(seed=1, classes=10))
    assert message == "its '9.weight' of shape (3, 16) does not fit the model's '9.weight' of shape (10, 16)"


def test_another_shape_under_other_names(path: Path) -> None:
    torch.save({f"net.{name}": entry for name, entry in trained().items()}, path)
    message = refused(path, build(seed=1, classes=10))
    assert message == "its 'net.9.weight' of shape (3, 16) does not fit the model's '9.weight' of shape (10, 16)"


def test_a_bias_is_not_taken_for_a_weight_of_the_same_shape(path: Path) -> None:
    norm = nn.BatchNorm1d(2)
    entries = {"n.bias": torch.zeros(2), "n.weight": torch.ones(2)}
    torch.save({**entries, "n.running_mean": torch.zeros(2), "n.running_var": torch.ones(2)}, path)
    assert refused(path, norm) == "its 'n.bias' of shape (2,) does not fit the model's 'weight' of shape (2,)"


def test_a_missing_entry_is_named(path: Path) -> None:
    torch.save({name: entry for name, entry in trained().items() if name != "5.bias"}, path)
    assert refused(path, build(seed=1)) == "has 11 entries where the model has 12; it lacks '5.bias'"


def test_an_entry_too_many_is_named(path: Path) -> None:
    torch.save({**trained(), "head.weight": torch.ones(2)}, path)
    message = refused(path, build(seed=1))
    assert message == "has 13 entries where the model has 12; it has 'head.weight', which the model does not"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300], ids=["nan", "inf", "too large for float32"])
def test_numbers_that_are_not_finite(path: Path, value: float) -> None:
    state = {**trained(), "5.running_var": torch.tensor([1, value, 1, 1], dtype=torch.float64)}
    torch.save(state, path)
    assert refused(path, build(seed=1)) == "its '5.running_var' is not finite everywhere"


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize(
    "bias",
    [torch.ones(3, dtype=torch.complex64), torch.ones(3).to_sparse(), torch.ones(3, device="meta")],
    ids=["complex", "sparse", "meta"],
)
def test_tensors_of_other_sorts(path: Path, bias: Tensor) -> None:
    torch.save({**trained(), "9.bias": bias}, path)
    assert refused(path, build(seed=1)) == "its '9.bias' is not a plain tensor of real numbers"


def test_quantised_weights_are_not_taken_without_their_scale(path: Path) -> None:
    torch.save({**trained(), "9.bias": torch.ones(3, dtype=torch.int8)}, path)
    assert refused(path, build(seed=1)) == "its '9.bias' holds torch.int8, not floating-point numbers"


@pytest.mark.parametrize(
    "content",
    [torch.ones(2), [torch.ones(2)], {}, {"epoch": 3}, {"state_dict": {"a": {"b": torch.ones(2)}}}, {0: torch.ones(2)}],
    ids=["tensor", "list", "empty", "numbers", "too deep", "numbered"],
)
def test_no_state_dict(path: Path, content: object) -> None:
    torch.save(content, path)
    assert refused(path, build(seed=1)).startswith("holds no state dict")


def test_a_pickle_that_wants_code_is_refused_and_not_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    torch.save({**trained(), "more": Attack()}, path)
    assert "a pickle that would run code is refused" in refused(path, build(seed=1))
    assert not Path("attacked").exists()


def test_a_whole_module_is_refused(path: Path) -> None:
    torch.save(build(seed=0), path)
    assert "cannot be read as a file of plain tensors" in refused(path, build(seed=1))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02}q\x00.", bytes(range(256))])
def test_foreign_files(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert refused(path, build(seed=1)).startswith(("cannot be read as a", "holds no state dict"))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_cut_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(trained(), path)
    whole = path.read_bytes()
    for size in range(1, len(whole) - 1, 200):
        path.write_bytes(whole[:size])
        assert "cannot be read as a" in refused(path, build(seed=1))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.pt", build(seed=1)) == "there is no such file"
    (tmp_path / "folder.pt").mkdir()
    assert refused(tmp_path / "folder.pt", build(seed=1)) == "there is no such file"
    assert refused(tmp_path / "weights.bin", build(seed=1)) == "give a file that ends in .safetensors, .pt or .pth"
