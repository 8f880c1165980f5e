"""Where batches come from: sources, decoding, augmentation, loading."""
from input_pipeline.loader import CorruptDataError
from input_pipeline.pipeline import Pipeline, create

__all__ = ['CorruptDataError', 'Pipeline', 'create']
