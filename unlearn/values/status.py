"""How far a run is, as its `summary.json` or `failed.json` says."""

DONE = ("completed", "diverged")  # it will not be computed again
STATUSES = (*DONE, "failed", "unfinished")
