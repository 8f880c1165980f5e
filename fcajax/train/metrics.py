"""Metrics that stay on the device until they are written: dictionaries of `clu.metrics`."""
import flax
import jax
import jax.numpy as jnp
import optax
from clu.metrics import Average, Metric

_NEVER = 2**31 - 1


@flax.struct.dataclass
class FirstNotFinite(Metric):
  """The first step whose values were not all finite; `compute` returns None where all were."""

  step: jax.Array

  @classmethod
  def empty(cls):
    return cls(step=jnp.array(_NEVER, jnp.int32))

  @classmethod
  def from_values(cls, step, *values):
    """`step`: int32 scalar; `values`: scalars, all of which should be finite."""
    finite = jnp.all(jnp.stack([jnp.isfinite(value) for value in values]))
    return cls(step=jnp.where(finite, _NEVER, step).astype(jnp.int32))

  def merge(self, other):
    return type(self)(step=jnp.minimum(self.step, other.step))

  def compute(self):
    step = int(self.step)
    return None if step == _NEVER else step


def top_k_correct(logits, labels, k):
  """Whether the label is among the `k` largest logits, `[N]` float32.

  A tie counts against the model where the other class has the smaller index, as in a stable
  descending sort. With fewer than `k` classes every image is correct.
  """
  of_label = jnp.take_along_axis(logits, labels[:, None], axis=-1)
  before = jnp.arange(logits.shape[-1])[None] < labels[:, None]
  rank = jnp.sum((logits > of_label) | ((logits == of_label) & before), axis=-1)
  # A comparison with NaN is false everywhere, which would count as correct.
  return ((rank < k) & jnp.isfinite(of_label[:, 0])).astype(jnp.float32)


def cross_entropy(logits, labels, label_smoothing=0.0):
  """Softmax cross entropy of each image, `[N]` float32.

  Label smoothing s gives the label 1 - s + s / classes and every other class s / classes
  (Szegedy et al. 2016, section 7), as PyTorch's `CrossEntropyLoss(label_smoothing=s)`.
  """
  logits = logits.astype(jnp.float32)
  targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32)
  return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing))


def averages(mask=None, **values):
  """A dictionary of `clu.metrics.Average`, one for each keyword (`[N]` or a scalar)."""
  result = {}
  for name, value in values.items():
    value = jnp.asarray(value, jnp.float32)
    use = mask if mask is not None and value.ndim else None
    result[name] = Average.from_model_output(value, mask=use)
  return result


def merge(left, right):
  """Adds two dictionaries of metrics with the same keys."""
  return {name: left[name].merge(right[name]) for name in left}


def reduce_devices(values, axis_name):
  """The same metrics over all devices of a mapped axis; unchanged where `axis_name` is None."""
  if axis_name is None:
    return values
  reduced = {}
  for name, value in values.items():
    if isinstance(value, FirstNotFinite):
      reduced[name] = FirstNotFinite(jax.lax.pmin(value.step, axis_name))
    else:
      reduced[name] = jax.lax.psum(value, axis_name)
  return reduced


def train_totals():
  """Empty totals of what the training step measures."""
  totals = {
      name: Average.empty() for name in ('loss', 'accuracy', 'auxiliary_loss', 'gradient_norm')}
  return totals | {'not_finite': FirstNotFinite.empty()}


def eval_totals():
  """Empty totals of what the evaluation step measures."""
  return {name: Average.empty() for name in ('loss', 'accuracy', 'top5')}


def compute(values):
  """Fetches metrics to the host: floats, and an int or None for `FirstNotFinite`.

  Averages of nothing (an auxiliary loss of a model that has none) are left out.
  """
  result = {}
  for name, value in jax.device_get(values).items():
    if isinstance(value, FirstNotFinite):
      result[name] = value.compute()
    elif value.count:
      result[name] = float(value.total) / int(value.count)
  return result
