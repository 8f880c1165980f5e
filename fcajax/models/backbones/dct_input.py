"""The mix-in that makes a network read selected, normalised block-DCT coefficients."""
from typing import Any

from flax import linen as nn
from jax.typing import ArrayLike

from fcajax.errors import UserError
from fcajax.layers.gate import FrequencyGate, PenaltyReduction
from fcajax.selection.coefficients import coefficient_subset
from fcajax.typing import AnyArray, Float


class DctInput(nn.Module):
  """Mix-in in front of a network class: checks the input's channels and holds the optional gate.

      class DctResNet(DctInput, ResNet): ...

  Strides of feature maps count pixels of the RGB image, of which a coefficient block covers 8 x 8.

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
  gate_penalty_reduction: PenaltyReduction = 'sum'
  gate_temperature: Any = 1.0

  input_stride = 8

  @nn.compact
  def __call__(
      self, x: Float[AnyArray, '...'], train: bool = False, capture_features: bool = False,
      progress: ArrayLike | None = None, sample_gate: bool = False) -> Any:
    """Runs the network on coefficients; the result is that of the network.

    Args:
      x: selected, normalised coefficients `[N, H/8, W/8, k]`.
      train: use the statistics of the batch, and sample the gates.
      capture_features: also return the features by stage.
      progress: fraction of training done, for the gate's temperature.
      sample_gate: sample the gate in evaluation too.

    Raises:
      UserError: the channels are not those of `coefficients`.
    """
    expected = len(coefficient_subset(self.coefficients))
    if x.ndim != 4 or x.shape[-1] != expected:
      raise UserError(
          f'the input has shape {x.shape}; coefficients={self.coefficients!r} needs '
          f'[N, H/8, W/8, {expected}]. Make it with '
          'fcajax.selection.coefficients.rgb_to_coefficients')
    if self.gate:
      x = FrequencyGate(
          temperature=self.gate_temperature, penalty=self.gate_penalty,
          penalty_reduction=self.gate_penalty_reduction, norm=self.norm,
          axis_name=self.axis_name, name='gate')(
              x, train=train, progress=progress, sample=sample_gate)
    return super().__call__(x, train=train, capture_features=capture_features)
