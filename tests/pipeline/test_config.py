"""Three rungs: every choice composes, every choice builds, every experiment runs two steps."""

import dataclasses
import pkgutil

import pytest
from omegaconf import OmegaConf

from unlearn.pipeline.build import build
from unlearn.pipeline.config import CONF
from unlearn.pipeline.run import run
from unlearn.pipeline.settings import read_settings
from unlearn.values.errors import UserError

CHOICES = sorted(
    (path.parent.name, path.stem) for path in CONF.glob("*/*.yaml") if path.parent.name not in ("hydra", "experiment")
)
PARTS = [choice for choice in CHOICES if "_target_" in (CONF / choice[0] / f"{choice[1]}.yaml").read_text()]
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


def override(group, choice):
    return f"+{group}={choice}" if group == "debug" else f"{group}={choice}"


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes(composed, group, choice):
    cfg = composed(f"{group}={choice}", *(["forget.path=x"] if choice == "file" else []))
    OmegaConf.resolve(cfg)
    assert not OmegaConf.missing_keys(cfg)


@pytest.mark.parametrize(("group", "choice"), PARTS)
def test_every_part_builds_and_its_yaml_states_every_setting(composed, group, choice):
    cfg = composed(f"{group}={choice}", *(["forget.path=x"] if choice == "file" else []))
    part = build(cfg[group], group)
    fields = {f.name for f in dataclasses.fields(pkgutil.resolve_name(cfg[group]._target_)) if f.init}
    assert set(cfg[group]) == {"_target_", *fields}
    assert part.name == choice or group == "logger"


def test_the_text_demo_is_of_texts(composed):
    settings = read_settings(composed("experiment=demo_text"))
    assert (settings.parts.dataset.name, settings.parts.model.name) == ("rotten_tomatoes", "minilm_linear")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs_two_steps(composed, tmp_path, experiment):
    cfg = composed(f"experiment={experiment}", "debug=smoke", "dataset=digits", "model=cnn", "device=cpu")
    assert run(cfg, tmp_path / "run")["step"] == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+penalty.gama=1"], "penalty.gama: SDPenalty has no such setting; it has name, gamma, normalisation"),
        (["penalty.gamma=high"], "penalty.gamma: Value 'high' of type 'str' could not be converted to Float"),
        (["penalty.gamma=-1"], "penalty.gamma=-1.0: must be at least 0"),
        (["penalty._target_=os.system"], "penalty._target_=os.system: is not a dataclass of settings"),
        (["penalty._target_=nowhere.Part"], "penalty._target_=nowhere.Part: cannot be imported"),
        (["penalty._target_=builtins.dict"], "penalty._target_=builtins.dict: is not a dataclass of settings"),
        (["~penalty.gamma"], "penalty.gamma: is not set; SDPenalty needs it"),
    ],
)
def test_a_wrong_part_is_one_line(composed, overrides, message):
    cfg = composed(*overrides)
    with pytest.raises(UserError) as caught:
        build(cfg.penalty, "penalty")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_conventions_set_every_row(composed):
    corrected, faithful = (composed(f"conventions={name}") for name in ("corrected", "faithful"))
    assert (corrected.optimizer.momentum, faithful.optimizer.momentum) == (0, 0.9)
    assert (corrected.optimizer.weight_decay, faithful.optimizer.weight_decay) == (0, 5e-4)
    assert (corrected.measure.sigma, faithful.measure.sigma) == ("largest_magnitude", "sqrt_signed")
    assert (corrected.measure.hessian_mode, faithful.measure.hessian_mode) == ("train", "eval")
    assert (corrected.curvature.name, faithful.curvature.name) == ("lanczos", "power")
    assert (corrected.method.correction, faithful.method.correction) == ("momentum_aware", "plain")
    assert (corrected.pretraining.includes_forget, faithful.pretraining.includes_forget) == (False, True)
    assert (corrected.pretraining.momentum, faithful.pretraining.momentum) == (0.9, 0)
    assert (corrected.pretraining.weight_decay, faithful.pretraining.weight_decay) == (0, 5e-4)
    assert {(cfg.pretraining.order, cfg.pretraining.augmentation) for cfg in (corrected, faithful)} == {
        ("shuffle_each_epoch", "each_epoch")
    }
    assert (corrected.measure.hessian_augmentation, faithful.measure.hessian_augmentation) == ("off", "once")
    assert faithful.schedule == {
        "order": "as_stored", "forget_batch": "first", "drop_last": False, "augmentation": "once",
    }  # fmt: skip


def test_texts_have_conventions_of_their_own(composed):
    cfg = composed("conventions=faithful_text", "dataset=imdb", "model=bert_linear")
    assert (cfg.curvature.name, cfg.measure.sigma, cfg.measure.hessian_samples_from) == (
        "power",
        "sqrt_signed",
        "random",
    )
    assert (cfg.optimizer.momentum, cfg.optimizer.weight_decay, cfg.pretraining.weight_decay) == (0, 0, 0)
    assert cfg.schedule == {
        "order": "shuffle_each_epoch", "forget_batch": "in_place", "drop_last": False, "augmentation": "off",
    }  # fmt: skip
    assert not cfg.model.standardise
    assert (cfg.pretraining.epochs, cfg.conventions.l2_detached, cfg.conventions.eval_after_measuring) == (
        0,
        True,
        False,
    )
    assert composed("dataset=imdb", "model=bert_linear").model.standardise


def test_every_convention_is_read_somewhere(composed):
    texts = [path.read_text() for path in CONF.rglob("*.yaml") if path.parent.name != "conventions"]
    sources = [path.read_text() for path in (CONF.parent / "unlearn").rglob("*.py")]
    for leaf in composed().conventions:
        if leaf != "name":
            read_in_yaml = any(f"${{conventions.{leaf}}}" in text for text in texts)
            assert read_in_yaml or any(f"conventions.{leaf}" in text for text in sources), leaf


def test_a_leaf_beats_its_convention(composed):
    cfg = composed("conventions=faithful", "optimizer.momentum=0", "method.correction=momentum_aware")
    assert cfg.optimizer.momentum == 0
    assert cfg.method.correction == "momentum_aware"
