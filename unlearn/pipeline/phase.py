"""The recorded phase: M and M' in step, what is measured of them, and what is kept so that it can go on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

from torch import Tensor

from unlearn.curvature.known import Known
from unlearn.curvature.transport import Difference
from unlearn.methods.method import Unlearned, applied
from unlearn.pipeline import keys, report
from unlearn.pipeline.job import Job
from unlearn.pipeline.measure import UNJUDGED, Look, Measurer, judge
from unlearn.pipeline.prepare import Prepared
from unlearn.store.entries import Slot
from unlearn.train.carried import Carried
from unlearn.train.checkpointed import Checkpointed
from unlearn.train.learner import Learner
from unlearn.train.loop import check_intervals, train
from unlearn.train.recording import Recording, Trained
from unlearn.train.visits import Group, Visits
from unlearn.values.errors import Diverged
from unlearn.values.schedule import Batch
from unlearn.values.state import pack, snapshot, unpack

KINDS = (Learner, Recording, Checkpointed, Visits, Group, Carried, Difference, Batch, Known, Unlearned)
LEFT_OUT = ("recipe",)  # it follows from the config


class Looked(TypedDict):
    """A measured step as the store keeps it.

    Where `view` is kept (M, M' and the recording, packed), any online method can be judged there later. Else `judged`
    is this run's own method, judged on the spot, and y is dropped but at the last step.
    """

    columns: dict[str, Any]
    y: Tensor | None
    view: dict[str, Any] | None
    judged: dict[str, Any] | None


@dataclass
class Phase:
    """The recorded phase while it lasts: all that must be kept for it to go on.

    Attributes:
        job: the run.
        trained: M and M' at the newest step.
        measurer: measures them.
        looks: the measured steps so far.
        taken: steps taken.
    """

    job: Job
    trained: Trained
    measurer: Measurer
    looks: list[Looked]
    taken: int = 0

    @classmethod
    def start(cls, job: Job, original: Learner, retrained: Learner) -> "Phase":
        """Begin before the first step.

        Args:
            job: the run.
            original: M at w_0.
            retrained: M' at its start.

        Returns:
            The phase.
        """
        return cls(job, job.prepared.begin(original, retrained), Measurer(job.prepared, job.seconds), [])

    @classmethod
    def resume(cls, job: Job, slot: Slot) -> "Phase | None":
        """Begin where an earlier start was stopped.

        Args:
            job: the run.
            slot: where it left its state.

        Returns:
            The phase; None where there is no state.
        """
        prepared = job.prepared
        state = slot.read_partial(prepared.device)
        if state is None:
            return None
        prepared.tracker.known = unpack(state["tracker"], KINDS)
        prepared.tracker.since_cold = state["since_cold"]
        measurer = Measurer(prepared, job.seconds, state["sigmas"])
        return cls(job, trained_of(prepared, state["view"]), measurer, state["looks"], state["taken"])

    def state(self) -> dict[str, Any]:
        """Give all that it goes on from, packed."""
        tracker = self.job.prepared.tracker
        return {
            "taken": self.taken,
            "view": _view(self.trained),
            "looks": self.looks,
            "sigmas": self.measurer.sigmas,
            "tracker": pack(tracker.known),
            "since_cold": tracker.since_cold,
        }

    def go_on(self, slot: Slot) -> Iterator[Looked]:
        """Train to the end.

        Args:
            slot: where the state is kept when that is due.

        Yields:
            Each measured step but the last, which stands in `looks`.

        Raises:
            Diverged: M, M' or M'' did; of M'', after the step was yielded without what needs it.
        """
        job, prepared, trained = self.job, self.job.prepared, self.trained
        recipe, last = prepared.recorded, prepared.recorded.schedule.total_steps
        looked = check_intervals(prepared.device, prepared.config.measure.every)
        steps = train(recipe, [trained.original], [trained.retrained], check_every=looked, start=self.taken)
        with report.progress("training M and M'", last) as advance:
            while True:
                with job.seconds("train"):  # up to where something is due: reading the clock waits for a GPU
                    for step in steps:
                        self.taken = step.taken
                        trained.recording.observe(step, trained.original)
                        advance(step.taken)
                        measured = prepared.is_measured(step.taken)
                        if measured or job.watch.due():
                            break
                    else:
                        return
                if measured:
                    with job.seconds("measure"):
                        look = self.measurer.look(step, trained)
                    try:
                        with job.seconds("measure"):
                            self.looks.append(self._item(look, final=step.taken == last))
                    except Diverged:  # M'' did: M and M' were measured all the same
                        yield {"columns": look.columns, "y": None, "view": None, "judged": UNJUDGED}
                        raise
                    if prepared.config.conventions.eval_after_measuring:
                        trained.original.train_mode = False
                    if step.taken != last:
                        yield self.looks[-1]
                # a GPU's losses are looked at now and then: what is not finite must be told, not gone on with
                if step.taken != last and job.watch.due() and trained.original.finite and trained.retrained.finite:
                    slot.write_partial(self.state())
                    job.watch.kept(f"at step {step.taken} of {last}")

    def _item(self, look: Look, *, final: bool) -> Looked:
        """What is kept of a look: where views are, any online method can be judged by them later."""
        item: Looked = {"columns": look.columns, "y": look.y, "view": None, "judged": None}
        if keys.keeps_views(self.job.prepared):
            before = self.looks[-1]["view"] if self.looks else None
            item["view"] = snapshot(_view(self.trained), before)
        elif not final:
            item["judged"], item["y"] = _judge(self.job, look, self.trained), None
        return item


def judged(job: Job, item: Looked) -> dict[str, Any]:
    """Judge the run's method at a measured step.

    Args:
        job: the run.
        item: the step as it was kept.

    Returns:
        The columns of a row that need M''.
    """
    if item["view"] is None:
        return dict(item["judged"] or {})
    return _judge(job, Look(item["columns"], item["y"]), trained_of(job.prepared, item["view"]))


def _judge(job: Job, look: Look, trained: Trained) -> dict[str, Any]:
    method, done = job.prepared.method, None
    if method.online:
        with job.seconds("unlearn"):
            done = applied(method, trained)
    return judge(look, trained.original, trained.retrained, done)


def _view(trained: Trained) -> dict[str, Any]:
    parts = {"original": trained.original, "retrained": trained.retrained, "recording": trained.recording}
    packed: dict[str, Any] = pack(parts, LEFT_OUT)
    return packed


def trained_of(prepared: Prepared, view: dict[str, Any]) -> Trained:
    """Unpack M and M' with what was recorded.

    Args:
        prepared: the run.
        view: of `state`, or of a measured step.

    Returns:
        What a method may look at.
    """
    parts = unpack(view, KINDS, recipe=prepared.recorded)
    return Trained(prepared.recorded, **parts, seed=prepared.config.seed)
