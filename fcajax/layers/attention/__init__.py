"""Channel attention: one file a family; `resolve_attention` builds any of them by name."""
from fcajax.layers.attention.cbam import ConvolutionalBlockAttention
from fcajax.layers.attention.eca import EfficientChannelAttention, eca_kernel_size
from fcajax.layers.attention.global_context import GlobalContext
from fcajax.layers.attention.multi_spectral import MultiSpectralAttention, basis_collection
from fcajax.layers.attention.resolve import (
  ATTENTIONS,
  attention_fields,
  resolve_attention,
)
from fcajax.layers.attention.squeeze_excite import SqueezeExcite

__all__ = [
    'ATTENTIONS', 'ConvolutionalBlockAttention', 'EfficientChannelAttention', 'GlobalContext',
    'MultiSpectralAttention', 'SqueezeExcite', 'attention_fields', 'basis_collection',
    'eca_kernel_size', 'resolve_attention']
