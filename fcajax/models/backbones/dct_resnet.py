"""ResNets on block-DCT coefficients (Xu et al., "Learning in the Frequency Domain", CVPR 2020).

`dct_resnet50` strides like an RGB ResNet behind its stem, 56 - 28 - 14 - 7, and costs what RGB
costs. `dct_resnet50_s1122` is the published code: stage 2 does not stride, so that stages 2 to 4
work at twice the size and four times the cost.
"""
import functools

from fcajax.models.backbones.dct_input import DctInput
from fcajax.models.backbones.ffc_resnet import FFCResNet
from fcajax.models.backbones.resnet import ResNet
from fcajax.models.backbones.stages import Stem


class DctResNet(DctInput, ResNet):
  """ResNet without stem or pooling: coefficients go straight into stage 1.

  The first block's convolutions take k channels. Fields are those of `ResNet` and `DctInput`.
  """

  stem: Stem = 'none'


class DctFFCResNet(DctInput, FFCResNet):
  """ResNet of fast Fourier convolutions on coefficients; fields of `FFCResNet` and `DctInput`."""

  stem: Stem = 'none'


_STRIDES = {'': ((1, 2, 2, 2), (56, 28, 14, 7)), '_s1122': ((1, 1, 2, 2), (56, 56, 28, 14))}
_DEPTHS = {
    18: {'stage_sizes': (2, 2, 2, 2), 'block': 'basic'},
    34: {'stage_sizes': (3, 4, 6, 3), 'block': 'basic'},
    50: {'stage_sizes': (3, 4, 6, 3)},
    101: {'stage_sizes': (3, 4, 23, 3)},
}

VARIANTS = {
    f'dct_resnet{depth}{suffix}': functools.partial(
        DctResNet, **fields, stage_strides=strides, dct_sizes=sizes)
    for suffix, (strides, sizes) in _STRIDES.items() for depth, fields in _DEPTHS.items()
} | {
    f'dct_ffc_resnet{depth}': functools.partial(DctFFCResNet, **_DEPTHS[depth])
    for depth in (18, 50)
}
