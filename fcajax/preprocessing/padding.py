"""The padding of images that keep their aspect ratio."""
import jax.numpy as jnp

from fcajax.typing import Array, Float, Int


def clear_padding(x: Float[Array, 'n h w c'], image_size: Int[Array, 'n 2'],
                  scale: float = 1.0) -> Float[Array, 'n h w c']:
  """Returns a normalised input with zeros outside each image.

  mmdetection pads after it has normalised, so that its padding is the mean colour. Padding of zeros
  in uint8 becomes that by being cleared again.

  Args:
    x: normalised pixels, or block-DCT coefficients.
    image_size: (height, width) of each image.
    scale: positions of `x` a pixel of `image_size`, see `positions_per_pixel`.
      A block that is partly inside stays.
  """
  limits = jnp.ceil(image_size * scale).astype(jnp.int32)
  rows = jnp.arange(x.shape[1]) < limits[:, :1]
  columns = jnp.arange(x.shape[2]) < limits[:, 1:]
  inside = rows[:, :, None, None] & columns[:, None, :, None]
  return jnp.where(inside, x, jnp.zeros((), x.dtype))


def positions_per_pixel(representation: str, enlarge: int) -> float:
  """Returns how many positions of a network's input a pixel of the boxes is, in each direction.

  Args:
    representation: of `Preprocessing`; 'dct' has a position for each block of 8 x 8.
    enlarge: pixels of the image a pixel of the boxes.
  """
  return enlarge / (8 if representation == 'dct' else 1)
