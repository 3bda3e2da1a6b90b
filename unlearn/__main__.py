"""The entrypoint: `python -m unlearn`, also the console script `unlearn`. Heavy imports come late."""

import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from unlearn.pipeline.config import CONF, Config, register
from unlearn.values.errors import Busy, Diverged, UserError
from unlearn.values.status import DONE

EXPECTED = (UserError, HydraException, OmegaConfBaseException, YAMLError, OSError)
_NOISE = ("full_key:", "object_type=", "reference_type=", "See https:", "Set the environment")


def one_line(error: BaseException) -> str:
    """Say an error in one line.

    Args:
        error: of ours, of Hydra or of OmegaConf, whose messages run over several lines.

    Returns:
        The message without line breaks and without their internals.
    """
    text = str(error).partition("Config search path:")[0]
    if (unknown := re.match(r"Could not override '([\w.]+)'", text)) and "To append" in text:
        return f"{unknown[1]}: there is no such setting{_beside(unknown[1])}"
    if isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        text += f"\n{error.__cause__}"  # Hydra names the override, OmegaConf what is wrong with it
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if line and not line.startswith(_NOISE)) or type(error).__name__


def _beside(key: str) -> str:
    """Say what settings there are where a key would stand, as far as the schema knows."""
    schema: Any = Config
    for name in key.split(".")[:-1]:
        schema = {field.name: field.type for field in fields(schema)}.get(name) if is_dataclass(schema) else None
    if is_dataclass(schema):
        return f"; there are {', '.join(field.name for field in fields(schema))}"
    return f" with these choices; --cfg {'hydra' if key.startswith('hydra.') else 'job'} shows all there are"


Work = Callable[[DictConfig, Path], dict[str, Any]]


def task(cfg: DictConfig, work: Work | None = None) -> float | None:
    """Do one job.

    Args:
        cfg: the composed config.
        work: does it in a folder and gives the summary; None is the run itself.

    Returns:
        The verification error, for sweepers that optimise.

    Raises:
        UserError: the input is wrong; the run folder is gone again where nothing was measured.
        Diverged: the run did, now or when it was run before.
        Interrupted: it was asked to stop, and has kept its state.
    """
    from unlearn.pipeline import report, sweep
    from unlearn.pipeline.interrupt import Interrupted
    from unlearn.pipeline.run import run
    from unlearn.pipeline.settings import refuse_labels

    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        refuse_labels(HydraConfig.get().overrides.task, HydraConfig.get().runtime.choices)
        before = sweep.state_of(folder)
        summary = (work or run)(cfg, folder)
        if summary["status"] == "diverged":  # when it was run before
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                return None
            error = Diverged.saying(summary["error"], summary["diverged_at"])
            raise error
        value = summary["verification_error"]
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            if before in DONE:  # as `run` has said
                return value
            logging.getLogger(__name__).info("%s: %s", folder.name, report.verdict(summary))
        else:
            report.show(summary, cfg.conventions.headline_error, folder)
    except Interrupted:
        if HydraConfig.get().mode == RunMode.RUN and sweep.state_of(folder) not in DONE:
            logging.getLogger(__name__).warning("with hydra.run.dir=%s it goes on in the same folder", folder)
        raise
    except EXPECTED:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise
    return None if value is None else float(value)


def point(cfg: DictConfig, work: Work | None = None) -> float | None:
    """Do one point of a sweep. One that fails says so in its own folder, and the others go on.

    Args:
        cfg: the composed config.
        work: as for `task`.

    Returns:
        The verification error, for sweepers that optimise; None where the point failed.

    Raises:
        Exception: the point failed, and the sweeper is another than ours, which would take it for done.
    """
    from unlearn.pipeline.sweep import alone
    from unlearn.records.folder import RunFolder, held, write_json

    folder = Path(HydraConfig.get().runtime.output_dir)
    with alone(folder) as ours:
        if not ours:
            return None  # another sweep is at it; the sweeper waits for it
        (folder / "failed.json").unlink(missing_ok=True)
        try:
            return task(cfg, work)
        except Busy as error:
            logging.getLogger(__name__).error("error: %s: %s", folder.name, error)
            return None  # that process will say how it ended
        except Exception as error:
            text = one_line(error) if isinstance(error, EXPECTED) else f"{type(error).__name__}: {error}"
            logging.getLogger(__name__).error("error: %s: %s", folder.name, text)
            if not isinstance(error, Diverged):  # its summary tells
                trace = "".join(traceback.format_exception(error))
                write_json(folder / "failed.json", {"status": "failed", "error": text, "traceback": trace})
                # a table of the sweep must know whose failure it was
                if not held(folder):
                    with suppress(OmegaConfBaseException):
                        RunFolder(folder).write_config(OmegaConf.to_yaml(cfg, resolve=True))
            if not HydraConfig.get().sweeper._target_.startswith("hydra_plugins.unlearn"):
                raise
            return None


def _lacking() -> str | None:
    """Say what is not there that every run needs."""
    if sys.platform == "win32":
        return "unlearn needs Linux or macOS; on Windows it runs within WSL"
    if not CONF.is_dir():
        return f"{CONF}: there are no configs beside the package; install a clone of it with pip install -e ."
    return None


def _conflict(words: list[str]) -> str | None:
    """Say which options exclude each other; Hydra would raise a bare ValueError."""
    shows = [word for word in words if word.partition("=")[0] in ("--cfg", "-c", "--info", "-i")]
    many = [word for word in words if word in ("-m", "--multirun", "--plan")]
    if shows and many:
        return f"{shows[0]}: shows the config of one run; leave out {many[0]}, and give each key one value"
    if "--resolve" in words and not shows:
        return "--resolve: goes with --cfg"
    return None


def _for_hydra(words: list[str]) -> list[str]:
    """Put `--multirun` first, since Hydra takes overrides after it but none before; `--plan` is an override to it."""
    rest = [word for word in words if word not in ("-m", "--multirun", "--plan")]
    plan = ["hydra.sweeper.plan=true"] if "--plan" in words else []
    return [*(["--multirun"] if len(rest) < len(words) else []), *rest, *plan]


def main() -> None:
    """Run from the command line. Bad input gets one line on stderr and exit code 2, a run that diverged 3."""
    failures: list[BaseException] = []

    def job(cfg: DictConfig) -> float | None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return point(cfg)
        try:
            return task(cfg)
        except EXPECTED as error:
            failures.append(error)  # raised, Hydra would put a line of its own before ours
            return None

    if lacking := _lacking() or _conflict(sys.argv[1:]):
        sys.stderr.write(f"error: {lacking}\n")
        sys.exit(2)
    register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, who print them shorter
    # before torch comes: threads that wait must sleep, or a small network slows down sixfold beside a busy neighbour
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = sys.argv[1:]
    sys.argv[1:] = _for_hydra(words)
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
    except EXPECTED as error:
        # of an OSError Hydra says neither what for nor what else; ours `job` has kept
        bare = isinstance(error, OSError) and not isinstance(error, HydraException) and "--plan" not in words
        failures.append(UserError(f"{error}: choose another hydra.run.dir or hydra.sweep.dir") if bare else error)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from what was kept\n")
        sys.exit(128 + signal.SIGINT)
    if failures:
        sys.stderr.write(f"error: {one_line(failures[0])}\n")
        sys.exit(3 if isinstance(failures[0], Diverged) else 2)


if __name__ == "__main__":
    main()
