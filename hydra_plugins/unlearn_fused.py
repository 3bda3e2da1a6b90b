"""`hydra/launcher=fused`: the points of a sweep whose networks are small run as one computation, the others one by one.

Hydra finds launchers in modules of the namespace package `hydra_plugins` alone. torch is imported when a sweep starts.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

if TYPE_CHECKING:
    from unlearn.pipeline.stacking import StackedRun

log = logging.getLogger(__name__)


@dataclass
class FusedLauncherConf:
    """Settings of the launcher.

    Attributes:
        most: the most points of one stack; bounds memory.
    """

    _target_: str = "hydra_plugins.unlearn_fused.FusedLauncher"
    most: int = 64


ConfigStore.instance().store(group="hydra/launcher", name="fused", node=FusedLauncherConf, provider="unlearn")


class FusedLauncher(Launcher):
    """Stacks the points that can be stacked, and runs every other as Hydra's basic launcher does."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Remember what Hydra hands over.

        Args:
            hydra_context: loads the configs of jobs.
            task_function: runs one job.
            config: of the sweep.

        Raises:
            UserError: `most` is too small.
        """
        from unlearn.values.errors import at_least

        at_least("hydra.launcher.most", self.most, 2)  # here, before anything is written
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs.

        Args:
            job_overrides: of each job.
            initial_job_idx: the number of the first.

        Returns:
            What each came to, in the same order.
        """
        from unlearn.pipeline.fused import compute
        from unlearn.pipeline.stacking import stacks
        from unlearn.pipeline.sweep_start import job_of

        setup_globals()
        self._log_as_sweep()
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        jobs = [self._job(initial_job_idx + place, overrides) for place, overrides in enumerate(job_overrides)]
        found, reasons = stacks([job_of(job) for job in jobs], self.most)
        for place, reason in sorted(reasons.items()):
            log.info("#%d runs alone: %s", initial_job_idx + place, reason)
        done: dict[int, JobReturn] = {}
        for stack in found:
            log.info("%d points as one stack: #%s", len(stack), ", #".join(str(initial_job_idx + k) for k in stack))
            try:
                compute(list(stack.values()))
            except Exception as error:  # one of them may be at fault, and only it should fail
                log.warning("they run one by one, since together: %s: %s", type(error).__name__, error)
                log.debug("where it came from", exc_info=True)
                continue
            for place, run in stack.items():
                done[place] = self._run(jobs[place], _writes(run))
        for place, job in enumerate(jobs):
            if place not in done:
                log.info("#%d : %s", initial_job_idx + place, " ".join(filter_overrides(job_overrides[place])))
                done[place] = self._run(job, self.task_function)
        return [done[place] for place in range(len(jobs))]

    def _log_as_sweep(self) -> None:
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)

    def _job(self, number: int, overrides: Sequence[str]) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = number
            config.hydra.job.num = number
        return config

    def _run(self, job: DictConfig, task: TaskFunction) -> JobReturn:
        done = run_job(
            hydra_context=self.hydra_context,
            task_function=task,
            config=job,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        self._log_as_sweep()
        return done


def _writes(computed: "StackedRun") -> TaskFunction:
    """Make the task that writes a computed run, with the locks of any other point."""
    from unlearn.__main__ import point
    from unlearn.pipeline.fused import finish

    return lambda cfg: point(cfg, lambda _, folder: finish(computed, folder))
