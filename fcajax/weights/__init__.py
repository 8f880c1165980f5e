"""Weights in and out: PyTorch import and safetensors files."""
from fcajax.weights.safetensors_file import load_safetensors, save_safetensors
from fcajax.weights.torch.from_torch import from_torch

__all__ = ['from_torch', 'load_safetensors', 'save_safetensors']
