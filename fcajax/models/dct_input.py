"""What turns a network into one that reads selected, normalised block-DCT coefficients."""
from typing import Any

from flax import linen as nn

from fcajax.layers.gate import FrequencyGate
from fcajax.ops.coefficients import coefficient_subset


class DctInput(nn.Module):
  """Mix-in in front of a network class: checks the input's channels and holds the optional gate.

      class DctResNet(DctInput, ResNet): ...

  Attributes:
    coefficients: which of the 192 coefficients the input holds, as `coefficient_subset` takes it.
    gate: put a `FrequencyGate` in front of the network.
    gate_penalty: weight of the penalty on open gates.
    gate_penalty_reduction: 'sum' (the paper) or 'mean' (the published code).
    gate_temperature: a number, or (start, end) of a geometric schedule over training.
  """

  coefficients: Any = '24S'
  gate: bool = False
  gate_penalty: float = 0.1
  gate_penalty_reduction: str = 'sum'
  gate_temperature: float | tuple[float, float] = 1.0

  @nn.compact
  def __call__(self, x, train=False, capture_features=False, progress=None, sample_gate=False):
    """Runs the network on coefficients.

    Args:
      x: selected, normalised coefficients `[N, H/8, W/8, k]`.
      train: batch statistics and sampled gates.
      capture_features: also return the features by stage.
      progress: fraction of training done, for the gate's temperature.
      sample_gate: sample the gate in evaluation too.
    Returns:
      As the network: logits `[N, num_classes]` float32, or (logits, features).
    Raises:
      ValueError: the channels are not those of `coefficients`.
    """
    expected = len(coefficient_subset(self.coefficients))
    if x.ndim != 4 or x.shape[-1] != expected:
      raise ValueError(
          f'the input has shape {x.shape}; coefficients={self.coefficients!r} needs '
          f'[N, H/8, W/8, {expected}]. Make it with fcajax.ops.coefficients.rgb_to_coefficients')
    if self.gate:
      x = FrequencyGate(
          temperature=self.gate_temperature, penalty=self.gate_penalty,
          penalty_reduction=self.gate_penalty_reduction, norm=self.norm,
          axis_name=self.axis_name, name='gate')(
              x, train=train, progress=progress, sample=sample_gate)
    return super().__call__(x, train=train, capture_features=capture_features)
