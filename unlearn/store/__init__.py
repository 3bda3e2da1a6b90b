"""Floor 3: what was computed once and is kept between runs."""
