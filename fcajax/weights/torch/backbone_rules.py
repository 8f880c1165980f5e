"""The rule modules of backbones and layers, by the class of the network.

Networks of a task (detectors, keypoint networks) have a backbone inside and ask for its rules here.
"""
from types import ModuleType
from typing import Any

from fcajax.weights.torch import names_dct, names_ffc, names_resnet

BACKBONE_RULES = {
    'ResNet': names_resnet,
    'DctResNet': names_dct,
    'MobileNetV2': names_dct,
    'FFCResNet': names_ffc,
    'FastFourierConv': names_ffc,
    'SpectralTransform': names_ffc,
    'FourierUnit': names_ffc,
    'FFCSqueezeExcite': names_ffc,
}


def find_rules(model: Any, rules: dict[str, ModuleType]) -> ModuleType | None:
  """Returns the rule module of the class of `model`, or of a class that it derives from."""
  return next((rules[cls.__name__] for cls in type(model).__mro__ if cls.__name__ in rules), None)


def backbone_rules(backbone: Any) -> ModuleType:
  """Returns the rule module of a network of `fcajax.models.backbones`."""
  return find_rules(backbone, BACKBONE_RULES)
