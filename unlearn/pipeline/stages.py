"""The stages that runs can share: w_0, the trained pair, M''. Each is computed once for all runs that agree on it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unlearn.methods.method import Unlearned, applied
from unlearn.pipeline import keys, report
from unlearn.pipeline.job import Job
from unlearn.pipeline.measure import UNJUDGED, Look
from unlearn.pipeline.phase import KINDS, Looked, Phase, judged, trained_of
from unlearn.store.entries import Slot
from unlearn.train.learner import Learner
from unlearn.train.loop import check_intervals, train
from unlearn.train.recording import Trained
from unlearn.values.errors import Diverged
from unlearn.values.measurement import Measurement
from unlearn.values.state import pack, unpack

STAGES = ("initial", "pair", "unlearned")


@dataclass(frozen=True)
class Pair:
    """M and M' at the end of the recorded phase.

    Attributes:
        trained: both, with the recording.
        look: the last measured step.
    """

    trained: Trained
    look: Look


Emit = Callable[[Measurement], None]


def initial(job: Job) -> tuple[Learner, Learner]:
    """Make the start of the recorded phase.

    Args:
        job: the run; gets the seconds `pretrain`.

    Returns:
        M and M' at w_0. They are equal but where `retrain.start=initial` and the pretraining sees the forget set.
    """
    prepared = job.prepared
    recipe, config = prepared.pretraining, prepared.config
    if recipe is None:
        start = Learner.fresh(prepared.network, prepared.device)
        return start, Learner.start(start.weights, start.buffers)

    def compute(slot: Slot) -> Any:
        sees_forget = config.pretraining.includes_forget
        state = slot.read_partial(prepared.device)
        if state is None:
            count = 2 if config.pretrains_apart else 1
            taken, learners = 0, [Learner.fresh(prepared.network, prepared.device) for _ in range(count)]
        else:
            taken, learners = state["taken"], unpack(state["learners"], KINDS)
        on_all, on_kept = (learners[:1], learners[1:]) if sees_forget else ([], learners)
        steps = train(recipe, on_all, on_kept, check_every=check_intervals(prepared.device), start=taken)
        with job.seconds("pretrain"), report.progress("pretraining", recipe.schedule.total_steps) as advance:
            try:
                for step in steps:
                    advance(step.taken)
                    if job.watch.due():
                        slot.write_partial({"taken": step.taken, "learners": pack(learners)})
                        job.watch.kept(f"at pretraining step {step.taken} of {recipe.schedule.total_steps}")
            except Diverged as error:
                raise error.in_pretraining() from None
        return [{"weights": m.weights, "buffers": m.buffers} for m in learners]

    found = job.get("initial", keys.initial(prepared), compute)
    starts = [Learner.start(each["weights"], each["buffers"]) for each in (found[0], found[-1])]
    return starts[0], starts[1]


def pair(job: Job, emit: Emit) -> Pair:
    """Train M and M' in step, and measure on the way.

    Args:
        job: the run; gets the seconds `train`, `measure`, `sigma`, `forecast` and `unlearn`.
        emit: takes the row of each measured step but the last, which needs M''.

    Returns:
        The pair at the end.
    """
    prepared = job.prepared
    emitted = 0

    def tell(item: Looked) -> None:
        nonlocal emitted
        emitted += 1
        try:
            found = judged(job, item)
        except Diverged:
            emit(Measurement(**item["columns"], **UNJUDGED))  # M and M' were measured whatever became of M''
            raise
        emit(Measurement(**item["columns"], **found))

    def compute(slot: Slot) -> Any:
        phase = Phase.resume(job, slot) or Phase.start(job, *initial(job))
        for item in phase.looks:
            tell(item)
        for item in phase.go_on(slot):
            tell(item)
        return phase.state()

    state = job.get("pair", keys.pair(prepared), compute)
    for item in state["looks"][emitted:-1]:
        tell(item)
    last = state["looks"][-1]
    return Pair(trained_of(prepared, state["view"]), Look(last["columns"], last["y"]))


def unlearned(job: Job, trained: Trained) -> Unlearned:
    """Make M'' at the end.

    Args:
        job: the run; gets the seconds `unlearn`.
        trained: the pair.

    Returns:
        M''.

    Raises:
        Diverged: it is not finite.
    """

    def compute(slot: Slot) -> Any:
        with job.seconds("unlearn"):
            return pack(applied(job.prepared.method, trained))

    done: Unlearned = unpack(job.get("unlearned", keys.unlearned(job.prepared), compute), KINDS)
    return done
