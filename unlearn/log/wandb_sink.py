"""Weights & Biases as a sink. `import wandb` waits until a run asks for it: it costs a second."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn.log.sink import NoSink, Sink
from unlearn.values.errors import UserError, choice
from unlearn.values.measurement import COLUMNS, Measurement

if TYPE_CHECKING:
    import wandb

MODES = ("online", "offline", "disabled")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WandbSettings:
    """How a run is shown in W&B (`logger=wandb`).

    Attributes:
        mode: `offline` writes files that `wandb sync` can send later, and needs neither network nor account; `online`
            sends them at once; `disabled` leaves W&B out.
        project: the project's name.
        group: runs that belong together; None leaves it to the pipeline.
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
        if not 1 <= len(self.project) <= 128 or set(self.project) & set("/\\#?%:"):
            raise UserError(f"logger.project={self.project}: must be 1 to 128 characters, none of / \\ # ? % :")
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

        Args:
            folder: the run's folder; W&B writes to `wandb/` in it.
            config: the resolved config, in plain types.
            group: used where the settings name none.
            job_type: used where the settings name none.
            name: used where the settings name none.

        Returns:
            The sink; one that keeps nothing where the mode is `disabled` or W&B fails.
        """
        if self.mode == "disabled":
            return NoSink()
        import wandb

        try:
            run = wandb.init(
                dir=str(folder),
                mode=self.mode,  # type: ignore[arg-type]
                project=self.project,
                group=self.group or group,
                job_type=self.job_type or job_type,
                tags=list(self.tags),
                name=self.name or name,
                entity=self.entity,
                config=dict(config),
                reinit="create_new",  # the jobs of a multirun share one process
                save_code=False,
                settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True),
            )
        except _failures() as error:
            _warn(error)
            return NoSink()
        return WandbSink(run)


class WandbSink(Sink):
    """A W&B run. The first failure inside W&B is reported as a warning; after it the sink is quiet, the run goes on."""

    def __init__(self, run: "wandb.Run") -> None:
        self._run = run
        self._quiet = False
        self._finished = False
        with self._guard():
            run.define_metric("step")
            for column in COLUMNS:
                if column.name != "step":
                    run.define_metric(column.name, step_metric="step")
