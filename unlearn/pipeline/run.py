"""One run: w_0, M and M' in step, unlearning, measuring, records, figures."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from unlearn.log.sink import Sink
from unlearn.methods.method import Unlearned
from unlearn.pipeline import keys, report, stages
from unlearn.pipeline.conclude import Ended, Outcome, conclude
from unlearn.pipeline.config import plain
from unlearn.pipeline.interrupt import Watch
from unlearn.pipeline.job import Job
from unlearn.pipeline.measure import judge
from unlearn.pipeline.memory import explained
from unlearn.pipeline.numerics import settle
from unlearn.pipeline.prepare import Prepared, prepare
from unlearn.pipeline.stages import Pair
from unlearn.pipeline.summary import summarise
from unlearn.records.folder import RunFolder, taken
from unlearn.records.provenance import provenance
from unlearn.store.alone import Alone, clear
from unlearn.store.entries import Store
from unlearn.values.errors import Diverged, UserError
from unlearn.values.measurement import Measurement

logger = logging.getLogger(__name__)


def run(cfg: DictConfig, path: Path) -> dict[str, Any]:
    """Do the main job, or go on with it where it was stopped.

    Args:
        cfg: the composed config.
        path: the run's folder; must not hold another run. One that came to its end there is not done again.

    Returns:
        The summary, as `summary.json` holds it.

    Raises:
        Diverged: training left the finite numbers; what was measured until then is in the folder.
        UserError: something is wrong with the input, or the folder holds another run.
    """
    outcome = Outcome()
    with outcome.seconds("prepare"), explained(cfg.device):
        prepared = prepare(cfg)
        settle(prepared)
    outcome.seconds.device = prepared.device
    settings = plain(cfg)
    watch = Watch(prepared.config.checkpoint.minutes)
    store = _store(prepared, path, watch)
    with taken(path):
        folder = RunFolder.create(path, settings)
        try:
            if (summary := folder.finished()) is not None:
                check_same(folder, prepared)
                logger.info("%s: is done already", path)
                return summary
            with opened(cfg, settings, prepared, folder, outcome) as sink, watch, explained(prepared.device):
                job = Job(prepared, outcome.seconds, watch, store, _user(folder.path, store), outcome.reused)
                pair = stages.pair(job, lambda row: _emit(row, folder, sink, outcome))
                if isinstance(store, Store):  # which has the pair now
                    watch.stop_if_asked("stopped after training; the store has it: the same command goes on from there")
                try:
                    unlearned = stages.unlearned(job, pair.trained)
                except Diverged:
                    _emit(_last(pair, None), folder, sink, outcome)  # M and M' were measured whatever became of M''
                    raise
                _emit(_last(pair, unlearned), folder, sink, outcome)
                conclude(prepared, Ended.of(pair.trained, unlearned), folder, sink, outcome)
        except (Diverged, UserError) as error:
            if watch.asked is not None:
                logger.error("error: %s", error)
                watch.stop_if_asked("stopped")  # else a sweep would go on with its next point
            raise
        finally:
            if folder.finished() is not None:
                clear(folder.path, stages.STAGES)
    watch.stop_if_asked("stopped; this run is done")  # but no further one of its sweep
    return outcome.summary


@contextmanager
def opened(
    cfg: DictConfig, settings: dict[str, Any], prepared: Prepared, folder: RunFolder, outcome: Outcome
) -> Iterator[Sink]:
    """Open a run's sink; write who, what and how before, and the summary after.

    Args:
        cfg: the composed config.
        settings: the same, resolved, in plain types.
        prepared: the run.
        folder: the run's.
        outcome: its summary is written at the end.

    Yields:
        The sink.

    Raises:
        Diverged: what the block raised; the summary says so.
        Exception: what the block raised.
    """
    folder.write_config(OmegaConf.to_yaml(cfg, resolve=True))
    record = _provenance(prepared)
    folder.write_json("provenance", record)
    shown = {**settings, "names": prepared.names}  # an agent's own parameter `method` hides `method.name` from W&B
    with prepared.logger.open(folder.path, shown, **report.labels(prepared.names, folder.path)) as sink:
        try:
            yield sink
        except Diverged as error:
            outcome.summary = summarise(outcome.rows, status="diverged", error=str(error), diverged_at=error.step)
            raise
        except Exception:
            if not outcome.rows:  # whoever mends the setting may use the folder again
                (folder.path / "provenance.json").unlink(missing_ok=True)
            raise
        finally:
            if outcome.summary:
                folder.cut(len(outcome.rows))
                outcome.summary |= {"seconds": dict(outcome.seconds.seconds), "reused": outcome.reused}
                outcome.summary["computed_on"] = record["device"]
                folder.write_json("provenance", {**record, "seconds": outcome.summary["seconds"]})
                folder.write_json("summary", outcome.summary)  # it says that the run is done
                (folder.path / "failed.json").unlink(missing_ok=True)  # of an attempt before, in a sweep
                sink.summary(outcome.summary)


def _last(pair: Pair, unlearned: Unlearned | None) -> Measurement:
    judged = judge(pair.look, pair.trained.original, pair.trained.retrained, unlearned)
    return Measurement(**pair.look.columns, **judged)


def _emit(row: Measurement, folder: RunFolder, sink: Sink, outcome: Outcome) -> None:
    folder.put(len(outcome.rows), row)
    outcome.rows.append(row)
    sink.log(row)


def _store(prepared: Prepared, path: Path, watch: Watch) -> Store | Alone:
    settings = prepared.config.store
    if not settings.enabled:
        return Alone(path, watch.due)
    message = "stopped while another run computed what this one needs: the same command goes on from there"
    store = Store(Path(settings.root).expanduser(), partial(watch.stop_if_asked, message))
    store.open()  # where it cannot be, the run should not leave a folder
    return store


def _user(path: Path, store: Store | Alone) -> str:
    # from the store, so that it holds wherever that is looked at from, and tells nothing about the machine
    # resolved, since whoever follows `..` leaves a link's target, not the link
    return os.path.relpath(path.resolve(), store.root.resolve()) if isinstance(store, Store) else str(path)


def check_same(folder: RunFolder, prepared: Prepared) -> None:
    """Refuse a finished run with the same settings but other batches or data, whose files have changed since.

    Args:
        folder: of the finished run.
        prepared: the run that is asked for.

    Raises:
        UserError: they differ. Of features, which another machine rounds otherwise, the data is not compared.
    """
    now, then = _provenance(prepared), folder.read_json("provenance")
    parts = {"schedule": "other batches, or another forget set", "weights": "other weights in model.weights"}
    if not prepared.data.train.inputs.is_floating_point():
        parts |= {"data": "other training data", "test": "other test data"}
    for key, what in parts.items():
        if key in then and then[key] != now[key]:
            raise UserError(f"{folder.path}: holds a run on {what}; choose another folder")


def _provenance(prepared: Prepared) -> dict[str, Any]:
    device = prepared.device
    return provenance(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        seed=prepared.config.seed,
        schedule=prepared.recorded.schedule.fingerprint(),
        data=prepared.data.train.fingerprint(),
        test=prepared.data.test.fingerprint(),
        weights=keys.start_of(prepared) if prepared.model.weights else None,
    )
