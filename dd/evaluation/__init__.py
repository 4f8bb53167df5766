"""An experiment's samplers, measured and timed as rows."""
