"""Floor 3: what runs share on disk: initial weights, trained pairs, unlearned weights, features."""
