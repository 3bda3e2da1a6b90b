"""Floor 3: the plain files of a run. They hold everything; whatever else is shown is drawn from them."""
