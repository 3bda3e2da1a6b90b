"""Floor 2: metrics, one file each. Pure functions of tensors and numbers."""
