"""One measured step, and what each of its columns means. The columns of `steps.csv` and the W&B keys come from here."""

from dataclasses import dataclass, field, fields
from typing import Any


def _column(unit: str, meaning: str) -> Any:
    return field(metadata={"unit": unit, "meaning": meaning})


@dataclass(frozen=True)
class Measurement:
    """A row of `steps.csv`. None is written as an empty cell: the quantity was not measured at this step."""

    step: int = _column("steps", "t, recorded steps that M has taken")
    epoch: int = _column("epochs", "epoch of the last of them, from 0")
    lr: float = _column("", "learning rate of the last step")
    visits: int = _column(
        "steps", "how many of the steps so far held a forgotten point: m, where a whole batch is forgotten"
    )
    loss: float = _column("nats", "training loss of M on the last batch, penalty included, before the step")
    sigma: float | None = _column("loss/weight^2", "largest singular value of the Hessian of the training loss at w_t")
    sigma_error: float | None = _column(
        "loss/weight^2", "estimated error of sigma, empty where the estimator has no estimate"
    )
    hvps: int = _column("products", "Hessian-vector products that sigma took at this step")
    distance_from_initial: float = _column("weight", "norm(w_t - w_0)")
    noop_distance: float = _column("weight", "norm(w_t - w'), the error of doing nothing")
    verification_error: float | None = _column("weight", "v = norm(w'' - w')")
    unlearning_error_paper: float | None = _column("", "eta^2 norm(w_t - w_0)/t (t^2 - t)/2 mean(sigma)")
    unlearning_error_code: float | None = _column("", "eta^2 norm(w_t - w_0) t/2 sigma, the latest sigma")
    unlearning_error_code_mean: float | None = _column("", "eta^2 norm(w_t - w_0) t/2 mean(sigma)")
    unlearning_error_unrolled: float | None = _column("weight", "eta norm(w_t - w_0)/t (t^2 - t)/2 mean(sigma)")
    unlearning_error_krylov: float | None = _column(
        "weight", "norm((w'' - w_t) - y), y the removal carried through the later steps: v as predicted"
    )
    predicted_noop_distance: float | None = _column("weight", "norm(y), the no-op distance as predicted")
    krylov_error: float | None = _column(
        "weight", "estimated error of y: the sum of what the last product changed at each measured step"
    )
    krylov_hvps: int = _column(
        "products", "Hessian-vector products, as differences of gradients, that y took at this step"
    )
    krylov_flags: str | None = _column(
        "", "why y should not be trusted; words joined by +, empty where nothing speaks against it"
    )
    correction_size: float | None = _column("weight", "norm(w'' - w_t); lr norm(g_0) for one plain single gradient")
    buffer_distance: float = _column("", "norm of M's buffers minus those of M' (BatchNorm statistics)")


@dataclass(frozen=True)
class Column:
    """What a key means.

    Attributes:
        name: the column of `steps.csv` and the W&B key.
        unit: empty where there is none.
        meaning: a formula or a sentence.
    """

    name: str
    unit: str
    meaning: str


COLUMNS = tuple(Column(f.name, f.metadata["unit"], f.metadata["meaning"]) for f in fields(Measurement))
ERRORS = (
    "unlearning_error_paper",
    "unlearning_error_code",
    "unlearning_error_code_mean",
    "unlearning_error_unrolled",
    "unlearning_error_krylov",
)
ERROR_KINDS = tuple(name.removeprefix("unlearning_error_") for name in ERRORS)
SETS = ("retain", "forget", "test")  # of points, that accuracies are taken on
WORDS = ("krylov_flags",)  # columns that hold text
NULL_PROXIES = ("step", "noop_distance", "correction_size")
