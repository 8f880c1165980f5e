"""Weights in and out: PyTorch import, safetensors files, work directories."""
