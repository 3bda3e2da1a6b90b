"""Measured steps for tests of what reads them."""

from dataclasses import replace

from unlearn.values.measurement import Measurement

ROW = Measurement(
    step=3,
    epoch=0,
    lr=0.1,
    visits=1,
    loss=2.3,
    sigma=4.5,
    sigma_error=0.004,
    hvps=9,
    distance_from_initial=0.2,
    noop_distance=0.3,
    verification_error=0.11,
    unlearning_error_paper=0.5,
    unlearning_error_code=0.6,
    unlearning_error_code_mean=0.7,
    unlearning_error_unrolled=0.8,
    unlearning_error_krylov=0.12,
    predicted_noop_distance=0.31,
    krylov_error=0.02,
    krylov_hvps=5,
    krylov_flags="growth+batchnorm",
    correction_size=0.9,
    buffer_distance=0.01,
)


def row(**changed) -> Measurement:
    """A full row with some cells changed."""
    return replace(ROW, **changed)
