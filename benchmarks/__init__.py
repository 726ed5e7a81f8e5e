"""Races against other software, as ratios measured side by side in one run; README.md says how they are run."""
