"""Detectors with two stages: proposals, then classes, boxes and masks."""
