"""Weights & Biases as a sink. `import wandb` waits until a run asks for it: it costs a second."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn.log.sink import Sink
from unlearn.values.errors import UserError, choice, in_one_line
from unlearn.values.measurement import COLUMNS, Measurement
from unlearn.values.nested import flatten

if TYPE_CHECKING:
    import wandb

MODES = ("online", "offline", "disabled")
# seconds that a server may keep a run waiting at its start and at its end, where W&B would wait for ever
PATIENCE = {"WANDB_INIT_TIMEOUT": 30.0, "WANDB_FINISH_TIMEOUT": 120.0}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WandbSettings:
    """How a run is shown in W&B (`logger=wandb`).

    Attributes:
        mode: `offline` writes files that `wandb sync` can send later, and needs neither network nor account; `online`
            sends them at once; `disabled` leaves W&B out.
        project: the project's name.
        group: runs that belong together; None leaves it to the pipeline, to which a sweep is one group.
        job_type: the kind of run; None leaves it to the pipeline.
        tags: words to find the run by.
        name: the run's name; None leaves it to the pipeline.
        entity: the user or team that owns the project; None is the account's own.
    """

    mode: str = "offline"
    project: str = "unlearn"
    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()
    name: str | None = None
    entity: str | None = None

    def __post_init__(self) -> None:
        choice("logger.mode", self.mode, MODES)
        project = self.project if isinstance(self.project, str) else ""  # a config may hold null or a number
        if not 1 <= len(project) <= 128 or set(project) & set("/\\#?%:"):
            raise UserError(
                f"logger.project={self.project}: must be a text of 1 to 128 characters, none of / \\ # ? % :"
            )
        if isinstance(self.tags, str) or not all(isinstance(tag, str) and 1 <= len(tag) <= 64 for tag in self.tags):
            raise UserError(f"logger.tags={self.tags}: must be a list of words of 1 to 64 characters, such as [a,b]")

    def open(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        group: str | None = None,
        job_type: str | None = None,
        name: str | None = None,
    ) -> Sink:
        """Start a W&B run.

        Its id is `run_id(folder, group of the settings)`, or WANDB_RUN_ID of the environment, which W&B's sweeps agent
        sets: a run that goes on or starts again takes the place of its former attempt. Where no server answers, or
        nobody is logged in, the run is kept offline.

        Args:
            folder: the run's folder; W&B writes to `wandb/` in it.
            config: the resolved config, in plain types.
            group: used where the settings name none.
            job_type: used where the settings name none.
            name: used where the settings name none; W&B takes 128 characters of it.

        Returns:
            The sink; one that keeps nothing where the mode is `disabled` or W&B fails.
        """
        if self.mode == "disabled":
            return Sink()
        import wandb

        own = run_id(folder, self.group)
        for mode in dict.fromkeys((self.mode, "offline")):
            try:
                start, end = (float(os.environ.get(name, seconds)) for name, seconds in PATIENCE.items())
                if mode == "online":
                    _log_in()
                _forget(folder, own)
                run = wandb.init(
                    dir=str(folder),
                    mode=mode,  # type: ignore[arg-type]
                    project=self.project,
                    group=self.group or group,
                    job_type=self.job_type or job_type,
                    tags=list(self.tags),
                    name=(self.name or name or "")[:128] or None,
                    entity=self.entity,
                    id=None if "WANDB_RUN_ID" in os.environ else own,
                    resume=None,  # what a server has under this id is replaced
                    config=dict(config),
                    reinit="create_new",  # the jobs of a multirun share one process
                    save_code=False,
                    settings=wandb.Settings(
                        silent=True,
                        console="off",
                        disable_git=True,
                        disable_code=True,
                        init_timeout=start,
                        finish_timeout=end,
                        finish_timeout_raises=True,
                    ),
                )
                return WandbSink(run, Path(run.settings.sync_dir))
            except Exception as error:
                _only_from_wandb(error, then="without it" if mode == "offline" else "with W&B offline")
                _renew()
        return Sink()


class WandbSink(Sink):
    """A W&B run. The first failure inside W&B is told as a warning; from then on the sink is quiet, the run goes on."""

    def __init__(self, run: "wandb.Run", written: Path | None = None) -> None:
        self._run = run
        self._written = written
        self._open = True
        self._quiet = False
        self._try(self._define)

    def _define(self) -> None:
        self._run.define_metric("step")
        for column in COLUMNS:
            if column.name != "step":
                self._run.define_metric(column.name, step_metric="step")

    def log(self, measurement: Measurement) -> None:
        """Log the columns of one step that were measured.

        Args:
            measurement: the row that `steps.csv` gets.
        """
        measured = {key: value for key, value in asdict(measurement).items() if value is not None}
        self._try(lambda: self._run.log(measured))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Write the run's summary; nested keys are joined by `/`.

        Args:
            values: may be nested; None is left out, but for columns of steps, which W&B has filled from an earlier row.
        """
        columns = {column.name for column in COLUMNS}
        found = {name: value for name, value in flatten(values, "/").items() if value is not None or name in columns}
        self._try(lambda: self._run.summary.update(found))

    def figure(self, name: str, path: Path) -> None:
        """Log an image as `figures/NAME`.

        Args:
            name: the figure's name.
            path: an image file.
        """
        import wandb

        self._try(lambda: self._run.log({f"figures/{name}": wandb.Image(str(path))}))

    def finish(self, exit_code: int = 0) -> None:
        """Finish the W&B run, also where the sink went quiet; a second call does nothing.

        Args:
            exit_code: 0 for a run that came to its end.
        """
        if self._open:
            self._open = False
            self._try(lambda: self._run.finish(exit_code), when_quiet=True)
            if self._quiet:
                _renew()
            elif self._written is not None:
                reason = lost(self._written)
                if reason:
                    logger.warning("W&B lost records (%s); the run's own files are complete", reason)

    def _try(self, call: Callable[[], object], when_quiet: bool = False) -> None:
        if self._quiet and not when_quiet:
            return
        try:
            call()
        except Exception as error:
            _only_from_wandb(error, warned=self._quiet)
            self._quiet = True


def lost(written: Path) -> str | None:
    """Find out whether W&B lost records for want of room: its process tells its own log at most.

    Args:
        written: W&B's folder of the run.

    Returns:
        The reason, or None where nothing speaks of a loss.
    """
    try:
        with tempfile.TemporaryFile(dir=written) as probe:
            probe.write(bytes(4096))  # a full disk takes no log either
        with (written / "logs" / "debug-internal.log").open(encoding="utf-8", errors="replace") as lines:
            failed = next((line for line in lines if "failed to save record" in line), None)
    except OSError as error:
        return f"{error.strerror or error}"
    return None if failed is None else failed.strip().rpartition(": ")[2].rstrip('"}')


def run_id(folder: Path, group: str | None = None) -> str:
    """Name a run for W&B by where it lies, so that every attempt at a point of a sweep is the same run.

    Args:
        folder: the run's folder; its name and that of the folder around it count, the rest of the path does not.
        group: of the settings; tells two sweeps of one name apart.

    Returns:
        16 hexadecimal digits.

    >>> run_id(Path("here/gammas/seed=0")) == run_id(Path("/there/gammas/seed=0")) != run_id(Path("gammas/seed=1"))
    True
    """
    parts = "\0".join((group or "", *folder.absolute().parts[-2:]))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _forget(folder: Path, own: str) -> None:
    """Take away what a former attempt at this run left to be synced: its rows are all measured again."""
    for old in folder.glob(f"wandb/offline-run-*-{own}"):
        shutil.rmtree(old)


def _renew() -> None:
    """Let the next run of this process have a W&B service of its own: a dead or a stuck one would refuse it."""
    import wandb

    try:
        wandb.teardown()
    except Exception as error:
        _only_from_wandb(error, warned=True)  # a dead service cannot even be told to end
    except SystemExit:
        pass  # with which W&B answers a service that ended badly; the run goes on


def _log_in() -> None:
    """See that W&B has a key: its `init` would ask for one on a terminal, and a sweep would wait for an answer."""
    import wandb

    # silent, else it says for each run whose key it found; online, else WANDB_MODE counts as nobody logged in
    wandb.setup(settings=wandb.Settings(silent=True, mode="online"))
    if not wandb.login(prompt=False, verify=False):
        raise wandb.errors.UsageError("nobody is logged in: run `wandb login`, or set WANDB_API_KEY")


def _only_from_wandb(error: Exception, warned: bool = False, then: str = "without it") -> None:
    """Let W&B's failures pass with a warning, and nothing else.

    W&B raises its own errors, the system's, pydantic's (ValueError), and some of its connection's that derive from
    Exception alone and have no public name; so the class's module tells.
    """
    if not (isinstance(error, OSError | ValueError | RuntimeError) or type(error).__module__.startswith("wandb.")):
        raise error
    if not warned:
        logger.warning("W&B failed (%s: %s); the run goes on %s", type(error).__name__, in_one_line(error), then)
