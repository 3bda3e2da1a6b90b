"""What of a config changes no number: how a run is logged, drawn, stored and stopped."""

BESIDE = ("logger", "figures", "store", "checkpoint", "hydra")  # its parts
