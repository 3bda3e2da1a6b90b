"""What of a config changes no number: how a run is logged, drawn, stored, stopped and held in memory."""

NEUTRAL = ("logger", "figures", "store", "checkpoint", "hydra", "measure.hessian_kept")  # keys, of which all below
