"""Run folders as a sweep leaves them, without running anything."""

import json

import pytest
import yaml

from tests.rows import row

SUMMARY = {
    **{key: value for key, value in vars(row()).items() if key != "krylov_flags"},
    "ratio": 0.5,
    "accuracy": {
        name: {"retain": 0.95, "forget": None, "test": test}
        for name, test in (("original", 0.9), ("retrained", 0.8), ("unlearned", 0.7))
    },
}


@pytest.fixture
def point(tmp_path):
    """Make a run folder; `v` None leaves it unfinished."""

    def make(name, v=0.25, status="completed", failed=None, seed=0, gamma=0.0, method="none", **more):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        config = {
            "seed": seed,
            "penalty": {"name": "sd", "gamma": gamma},
            "method": {"name": method, "_target_": f"methods.{method}", **more.pop("settings", {})},
            "conventions": {"headline_error": "unrolled"},
            "model": {"widths": [8, 4], "norm": None},
            **more,
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        if v is not None:
            summary = {"status": status, **SUMMARY, "verification_error": v}
            if status == "diverged":
                summary["error"] = "the loss is not finite"
            (folder / "summary.json").write_text(json.dumps(summary))
        if failed:
            (folder / "failed.json").write_text(json.dumps({"error": failed}))
        return folder

    return make
