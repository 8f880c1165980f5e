"""Reference values of the detection operations, and a greedy suppression to compare with."""
import json
import pathlib

import numpy as np

DATA = pathlib.Path(__file__).resolve().parent.parent / 'data'


def load_operations():
  """(arrays by key, settings) of the reference implementations' operations."""
  with np.load(DATA / 'detection_ops.npz') as stored:
    arrays = dict(stored)
  return arrays, json.loads((DATA / 'detection_ops.json').read_text())


def overlap(a, b):
  """IoU of two boxes."""
  size = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
  common = np.prod(size)
  union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common
  return common / union if union > 0 else 0.0


def greedy(boxes, scores, threshold, groups):
  """Kept indices, best first, as the textbook writes it."""
  kept = []
  for i in np.argsort(-scores, kind='stable'):
    if all(groups[i] != groups[j] or overlap(boxes[i], boxes[j]) <= threshold for j in kept):
      kept.append(i)
  return kept
