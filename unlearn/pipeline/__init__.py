"""Floor 4: assembly. Config to parts to a run. Nothing below imports it, and only this floor knows Hydra."""
