"""Floor 3: where a run is followed live. Optional: the plain files of a run hold all that a sink gets."""
