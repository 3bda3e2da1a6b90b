"""Hydra finds plugins in this namespace package alone: the sweeper that skips what is done and tells how it went."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from hydra_plugins.unlearn_fused import FusedLauncher


@dataclass
class PointsConf:
    """Settings of `hydra/sweeper=points`, the default."""

    _target_: str = "hydra_plugins.unlearn_sweeper.Points"
    params: dict[str, str] | None = None  # a grid: key to comma-separated values; the command line goes before it
    max_batch_size: int | None = None  # points that the launcher is given at once; None: all
    plan: bool = False  # `--plan`: say what would be done, and do nothing


ConfigStore.instance().store(group="hydra/sweeper", name="points", node=PointsConf, provider="unlearn")


class Points(BasicSweeper):
    """Every combination of the values, each in a folder named by its overrides."""

    def __init__(
        self, params: dict[str, str] | None = None, max_batch_size: int | None = None, plan: bool = False
    ) -> None:
        super().__init__(max_batch_size=max_batch_size, params=params)
        self.plan = plan

    def _composed(self, point: Any) -> DictConfig:
        assert self.config is not None
        assert self.hydra_context is not None
        return self.hydra_context.config_loader.load_sweep_config(self.config, point.overrides)

    def sweep(self, arguments: list[str]) -> Any:
        """Do the points that are not done.

        Args:
            arguments: the overrides of the command line.

        Returns:
            What the launcher returned.
        """
        from unlearn.pipeline import plan, sweep, sweep_start
        from unlearn.values.errors import at_least
        from unlearn.values.status import DONE

        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        fixed = {override.get_key_element().lstrip("+") for override in parser.parse_overrides(arguments)}
        own = [text for text in self._parse_config() if text.partition("=")[0].lstrip("+") not in fixed]
        overrides = parser.parse_overrides([*own, *arguments])
        (grid,) = self.split_arguments(overrides, None)
        varied = {override.get_key_element() for override in overrides if override.is_sweep_override()}
        points = sweep.points(grid, varied)
        at_least("hydra.sweeper.max_batch_size", self.max_batch_size, 1)
        folder = Path(self.config.hydra.sweep.dir)
        common = [text for text in [*own, *arguments] if text.partition("=")[0] not in varied]
        sources = self.config.hydra.runtime.config_sources
        folders = [Path(source.path) for source in sources if source.schema == "file"]
        base = sweep_start.base_of(common, folders, self.config)
        known = sweep_start.noted(folder, base)
        todo = [point for point in points if not (point.name in known and sweep.state_of(folder / point.name) in DONE)]
        if todo:
            sweep_start.check(todo, folder, self._composed, known)
            # what is there are these very runs, even if the sweep was started in another way before
            todo = [point for point in todo if sweep.state_of(folder / point.name) not in DONE]
        if self.plan:
            jobs = [sweep_start.job_of(self._composed(point)) for point in points]
            plan.show(jobs, points, folder, fused=isinstance(self.launcher, FusedLauncher))
            return []
        sweep_start.note(folder, base, points)
        return sweep.conduct(points, todo, folder, self.launcher.launch, self.max_batch_size)
