"""Fast Fourier convolution and its parts."""
from fcajax.layers.fourier.ffc import (
  FastFourierConv,
  FastFourierConv2D,
  FFCNormAct,
  FFCSqueezeExcite,
  join,
  split,
  split_channels,
)
from fcajax.layers.fourier.fourier_unit import FourierUnit, LocalFourierUnit
from fcajax.layers.fourier.spectral_transform import SpectralTransform

__all__ = [
    'FFCNormAct', 'FFCSqueezeExcite', 'FastFourierConv', 'FastFourierConv2D', 'FourierUnit',
    'LocalFourierUnit', 'SpectralTransform', 'join', 'split', 'split_channels']
