"""The stages that runs can share: w_0, the trained pair, M''. Each is computed once for all runs that agree on it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

from torch import Tensor

from unlearn.curvature.known import Known
from unlearn.curvature.transport import Difference
from unlearn.methods.method import Unlearned, applied
from unlearn.pipeline import keys, report
from unlearn.pipeline.interrupt import Watch
from unlearn.pipeline.measure import UNJUDGED, Look, Measurer, judge
from unlearn.pipeline.prepare import Prepared
from unlearn.pipeline.stopwatch import Stopwatch
from unlearn.store.alone import Alone
from unlearn.store.entries import Slot, Store
from unlearn.train.carried import Carried
from unlearn.train.checkpointed import Checkpointed
from unlearn.train.learner import Learner
from unlearn.train.loop import check_intervals, train
from unlearn.train.recording import Recording, Trained
from unlearn.train.visits import Group, Visits
from unlearn.values.errors import Diverged
from unlearn.values.measurement import Measurement
from unlearn.values.schedule import Batch
from unlearn.values.state import pack, snapshot, unpack

STAGES = ("initial", "pair", "unlearned")
KINDS = (Learner, Recording, Checkpointed, Visits, Group, Carried, Difference, Batch, Known, Unlearned)
LEFT_OUT = ("recipe",)  # it follows from the config


@dataclass
class Job:
    """What every stage of a run works with.

    Attributes:
        prepared: the run.
        seconds: the clock.
        watch: tells when to keep the state.
        store: shared entries, or none.
        user: the run's name in the store.
        reused: by stage, whether the store had it.
    """

    prepared: Prepared
    seconds: Stopwatch
    watch: Watch
    store: Store | Alone
    user: str
    reused: dict[str, bool]

    def get(self, stage: str, inputs: dict[str, Any], compute: Callable[[Slot], Any]) -> Any:
        """Take a stage's result from the store, or compute it.

        Args:
            stage: its name.
            inputs: all that determines it.
            compute: makes it.

        Returns:
            The packed state.
        """
        state, self.reused[stage] = self.store.get(stage, inputs, compute, self.prepared.device, self.user)
        return state


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


class Looked(TypedDict):
    """A measured step as the store keeps it.

    Where `view` is kept (M, M' and the recording, packed), any online method can be judged there later. Else `judged`
    is this run's own method, judged on the spot, and y is dropped but at the last step.
    """

    columns: dict[str, Any]
    y: Tensor | None
    view: dict[str, Any] | None
    judged: dict[str, Any] | None


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
            judged = _judged(job, item)
        except Diverged:
            emit(Measurement(**item["columns"], **UNJUDGED))  # M and M' were measured whatever became of M''
            raise
        emit(Measurement(**item["columns"], **judged))

    def compute(slot: Slot) -> Any:
        phase = _Phase.resume(job, slot) or _Phase.start(job)
        for item in phase.looks:
            tell(item)
        for item in phase.go_on(slot):
            tell(item)
        return phase.state()

    state = job.get("pair", keys.pair(prepared), compute)
    for item in state["looks"][emitted:-1]:
        tell(item)
    last = state["looks"][-1]
    return Pair(_trained(prepared, state["view"]), Look(last["columns"], last["y"]))


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


@dataclass
class _Phase:
    """The recorded phase while it lasts: all that must be kept for it to go on."""

    job: Job
    trained: Trained
    measurer: Measurer
    looks: list[Looked]
    taken: int = 0

    @classmethod
    def start(cls, job: Job) -> "_Phase":
        prepared = job.prepared
        return cls(job, prepared.begin(*initial(job)), Measurer(prepared, job.seconds), [])

    @classmethod
    def resume(cls, job: Job, slot: Slot) -> "_Phase | None":
        prepared = job.prepared
        state = slot.read_partial(prepared.device)
        if state is None:
            return None
        prepared.tracker.known = unpack(state["tracker"], KINDS)
        prepared.tracker.since_cold = state["since_cold"]
        measurer = Measurer(prepared, job.seconds, state["sigmas"])
        return cls(job, _trained(prepared, state["view"]), measurer, state["looks"], state["taken"])

    def state(self) -> dict[str, Any]:
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
        """Train to the end; give each look but the last."""
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
                        self.looks.append(self._item(look, final=step.taken == last))
                    if prepared.config.conventions.eval_after_measuring:
                        trained.original.train_mode = False
                    if step.taken != last:
                        yield self.looks[-1]
                if step.taken != last and job.watch.due():
                    slot.write_partial(self.state())
                    job.watch.kept(f"at step {step.taken} of {last}")

    def _item(self, look: Look, *, final: bool) -> Looked:
        """What is kept of a look: where views are, any online method can be judged by them later."""
        item: Looked = {"columns": look.columns, "y": look.y, "view": None, "judged": None}
        if keys.keeps_views(self.job.prepared):
            before = self.looks[-1]["view"] if self.looks else None
            item["view"] = snapshot(_view(self.trained), before)
        elif not final:
            item["judged"], item["y"] = _judge_now(self.job, look, self.trained), None
        return item


def _judged(job: Job, item: Looked) -> dict[str, Any]:
    if item["view"] is None:
        return dict(item["judged"] or {})
    return _judge_now(job, Look(item["columns"], item["y"]), _trained(job.prepared, item["view"]))


def _judge_now(job: Job, look: Look, trained: Trained) -> dict[str, Any]:
    method, done = job.prepared.method, None
    if method.online:
        with job.seconds("unlearn"):
            done = applied(method, trained)
    return judge(look, trained.original, trained.retrained, done)


def _view(trained: Trained) -> dict[str, Any]:
    parts = {"original": trained.original, "retrained": trained.retrained, "recording": trained.recording}
    packed: dict[str, Any] = pack(parts, LEFT_OUT)
    return packed


def _trained(prepared: Prepared, view: dict[str, Any]) -> Trained:
    parts = unpack(view, KINDS, recipe=prepared.recorded)
    return Trained(prepared.recorded, **parts, seed=prepared.config.seed)
