"""Whole runs on texts: a frozen tiny BERT with a linear layer, and all of it trained."""

import json
from pathlib import Path
from shutil import copytree

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.encoders import reviews, tiny_bert
from unlearn.pipeline import keys
from unlearn.pipeline.encode import moments
from unlearn.pipeline.prepare import prepare
from unlearn.pipeline.run import run
from unlearn.pipeline.stacking import stacks
from unlearn.store import features as store
from unlearn.values.errors import UserError

SIZES = ("dataset.train_size=32", "dataset.test_size=16", "training.batch_size=8", "pretraining.batch_size=8")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("text")
    tiny_bert(home / "bert")
    for name, seed in (("train", 0), ("test", 1)):
        texts, labels = reviews(40, seed)
        pd.DataFrame({"text": texts, "label": labels}).to_csv(home / f"{name}.csv", index=False)
    return home


@pytest.fixture
def textual(tiny, home, tmp_path):
    def make(model, *overrides):
        return tiny(
            "dataset=imdb",
            f"dataset.root={home}",
            f"model={model}",
            f"model.encoder={home / 'bert'}",
            "model.max_length=16",
            f"store.root={tmp_path / 'store'}",
            "store.enabled=true",
            *SIZES,
            *overrides,
        )

    return make


def weights(folder, name):
    return load_file(folder / "weights" / f"{name}.safetensors")


def entries(tmp_path):
    return [path for path in (tmp_path / "store" / "features").iterdir() if path.is_dir()]


@pytest.mark.parametrize("model", ["bert_linear", "minilm_linear", "bert_finetune", "minilm_finetune"])
def test_the_main_job_holds_for_text(textual, tmp_path, model):
    summary = run(
        textual(model, f"figures={model.startswith('minilm')}", "measure.every=4", "penalty.gamma=5"), tmp_path / "run"
    )
    steps = pd.read_csv(tmp_path / "run" / "steps.csv")
    assert steps.step.tolist() == [4, 8]
    assert steps.sigma.notna().all()
    assert (steps.sigma > 0).all()
    assert summary["verification_error"] > 0
    assert summary["noop_distance"] > 0
    if model.startswith("minilm"):
        assert {path.name for path in (tmp_path / "run" / "figures").iterdir()} >= {"errors.png", "accuracy.png"}


@pytest.mark.parametrize("model", ["bert_linear", "minilm_finetune"])
def test_with_nothing_forgotten_m_prime_is_m(textual, tmp_path, model):
    run(textual(model, "forget=none", "training.save_weights=true"), tmp_path / "run")
    initial, original, retrained = (weights(tmp_path / "run", name) for name in ("initial", "original", "retrained"))
    assert original.keys() == retrained.keys()
    assert all(torch.equal(original[name], retrained[name]) for name in original)
    # not because nothing happened
    assert sum(not torch.equal(original[name], initial[name]) for name in original) > len(original) / 2


def test_dropout_is_drawn_in_training_from_the_runs_seed(textual, tmp_path):
    variants = (("a", []), ("b", []), ("c", ["model.dropout=0", "model.head_dropout=0"]))
    for place, (name, extra) in enumerate(variants):
        torch.manual_seed(place)  # of no consequence
        run(textual("minilm_finetune", "training.save_weights=true", *extra), tmp_path / name)
    a, b, c = (weights(tmp_path / name, "original") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["head.weight"], c["head.weight"])


def test_measuring_changes_nothing(textual, tmp_path):
    for every in (3, 1000):
        extra = ("training.save_weights=true", f"measure.every={every}")
        run(textual("minilm_finetune", *extra), tmp_path / str(every))
    often, never = (weights(tmp_path / every, "original") for every in ("3", "1000"))
    assert all(torch.equal(often[name], never[name]) for name in often)


@pytest.mark.parametrize(
    ("method", "forget"), [("krylov", "class"), ("gradient_ascent", "points"), ("finetune", "batch")]
)
def test_methods_and_forget_sets_take_features(textual, tmp_path, method, forget):
    summary = run(textual("minilm_linear", f"method={method}", f"forget={forget}"), tmp_path / "run")
    assert summary["status"] == "completed"
    assert summary["correction_size"] > 0


def test_features_are_kept_and_used_again(textual, tmp_path, monkeypatch):
    first = prepare(textual("minilm_linear"))
    assert len(entries(tmp_path)) == 2  # training and test texts
    monkeypatch.setattr("unlearn.models.encoder.load", None)  # calling it would fail
    second = prepare(textual("minilm_linear"))
    assert torch.equal(first.data.train.inputs, second.data.train.inputs)
    assert second.data.train.inputs.shape == (32, 8)
    assert second.data.train.inputs.dtype == torch.float32


@pytest.mark.parametrize("changed", ["model.pooling=cls", "model.max_length=5", "seed=1"])
def test_what_changes_features_makes_new_entries(textual, tmp_path, changed):
    first = prepare(textual("minilm_linear"))
    second = prepare(textual("minilm_linear", changed))
    assert len(entries(tmp_path)) == 4
    assert not torch.equal(first.data.train.inputs, second.data.train.inputs)


def test_neither_batch_size_nor_store_changes_features(textual, tmp_path):
    kept = prepare(textual("minilm_linear")).data
    for extra in (["model.batch_size=5"], ["model.batch_size=1"], []):
        fresh = prepare(textual("minilm_linear", "store.enabled=false", *extra)).data
        torch.testing.assert_close(fresh.train.inputs, kept.train.inputs, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(fresh.test.inputs, kept.test.inputs, rtol=1e-5, atol=1e-6)
    assert len(entries(tmp_path)) == 2


def test_an_entry_names_its_ingredients(textual, tmp_path):
    prepare(textual("minilm_linear"))
    made_of = json.loads((entries(tmp_path)[0] / store.RECORD).read_text())["made_of"]
    assert set(made_of) == {"encoder", "libraries", "pooling", "max_length", "texts"}


def test_what_only_the_encoders_config_says_is_in_the_key(textual, home, tmp_path):
    """How many heads there are changes every number, but no weight and no printed layer."""
    found = []
    for heads in (2, 4):
        folder = Path(copytree(home / "bert", tmp_path / "bert"))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": heads}))
        found.append(keys.pair(prepare(textual("minilm_finetune", f"model.encoder={folder}"))))
        folder.rename(tmp_path / f"done{heads}")
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("model", "change"), [("minilm_linear", "model.standardise=false"), ("minilm_finetune", "model.pooling=cls")]
)
def test_the_same_weights_used_otherwise_have_another_key(textual, model, change):
    plain, other = (prepare(textual(model, *more)) for more in ([], [change]))
    assert torch.equal(plain.network.initial_weights(), other.network.initial_weights())
    assert torch.equal(plain.data.train.inputs, other.data.train.inputs)
    assert keys.initial(plain) != keys.initial(other)


def test_standardised_features_have_mean_0_and_deviation_1(textual):
    data = prepare(textual("minilm_linear")).data
    inputs = data.train.batch(torch.arange(32))
    torch.testing.assert_close(inputs.mean(0), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(inputs.std(0, correction=0), torch.ones(8), rtol=1e-5, atol=0)
    assert torch.equal(data.test.mean, data.train.mean)
    raw = prepare(textual("minilm_linear", "model.standardise=false")).data
    assert torch.equal(raw.train.batch(torch.arange(32)), data.train.inputs)


def test_moments_in_chunks_and_of_a_constant():
    inputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    inputs[:, 1] = 7
    mean, std = moments(inputs, chunk=7)
    torch.testing.assert_close(mean, inputs.mean(0))
    torch.testing.assert_close(std[[0, 2]], inputs.std(0, correction=0)[[0, 2]])
    assert std[1] == 1


def test_token_ids_reach_the_network_untouched(textual):
    data = prepare(textual("minilm_finetune")).data
    assert data.train.inputs.dtype == torch.int64
    points = torch.tensor([3, 0])
    assert torch.equal(data.train.batch(points), data.train.inputs[points])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=cnn"], "model=cnn: cannot read texts, and dataset=imdb holds texts; try model=minilm_linear"),
        (["dataset=digits"], "model=minilm_linear: reads texts, and dataset=digits holds none; try dataset=imdb"),
        (["model.encoder=/no/such"], "model.encoder=/no/such: is neither a folder, nor minilm, nor a name on the hub"),
        (["model.max_length=17"], "takes at most 16 tokens"),
        (["dataset.test_size=41"], "dataset.test_size=41: must lie between 1 and the 40"),
    ],
)
def test_what_does_not_fit_is_one_line(composed, home, tmp_path, overrides, message):
    base = {"dataset": "imdb", "model": "minilm_linear"}
    base |= dict(override.split("=", 1) for override in overrides if "." not in override)
    rest = [override for override in overrides if "." in override]
    if base["dataset"] == "imdb":
        rest.insert(0, f"dataset.root={home}")
    if base["model"] == "minilm_linear":
        rest[:0] = [f"model.encoder={home / 'bert'}", "model.max_length=16"]
    cfg = composed(*(f"{k}={v}" for k, v in base.items()), *rest, f"store.root={tmp_path / 'store'}", "device=cpu")
    with pytest.raises(UserError) as caught:
        prepare(cfg)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_points_of_a_sweep_share_test_texts_only_where_the_seed_draws_none(textual):
    configs = [
        textual("minilm_linear", f"seed={seed}", "dataset.train_size=null", "measure.krylov=0") for seed in (0, 1)
    ]
    (stack,), _ = stacks(configs, 8)  # dataset.test_size=16
    assert not torch.equal(*(stack[place].prepared.data.test.inputs for place in (0, 1)))


def test_points_of_a_sweep_share_texts_only_as_the_same_model_reads_them(textual, tmp_path):
    settings = [(pooling, seed) for pooling in ("mean", "cls") for seed in (0, 1)]
    configs = [textual("minilm_linear", f"model.pooling={pooling}", f"seed={seed}", "dataset.train_size=null",
                       "measure.krylov=0") for pooling, seed in settings]  # fmt: skip
    found, reasons = stacks(configs, 8)
    assert sorted(sorted(stack) for stack in found) == [[0, 1], [2, 3]], reasons
    for stack in found:
        for place, point in stack.items():
            alone = prepare(configs[place])
            assert torch.equal(point.prepared.data.train.inputs, alone.data.train.inputs)
