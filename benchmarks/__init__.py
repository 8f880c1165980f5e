"""Measurements: cpu/, accelerator/, and the tables of README and docs made from results/."""
