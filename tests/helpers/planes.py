"""How JPEG makes 4:2:0 chroma planes: the reference for what the library computes in one step."""
import numpy as np

from fcajax.ops.color import double


def halve(x):
  """Averages every 2 x 2 pixels (libjpeg's h2v2 downsampling): `[N, H/2, W/2, C]` float32."""
  n, height, width, channels = x.shape
  x = np.asarray(x, np.float32).reshape(n, height // 2, 2, width // 2, 2, channels)
  return x.mean((2, 4))


def enlarge_and_halve(x):
  """Enlarges planes twice and halves them again, as the published pipeline does to chroma."""
  return halve(double(x))
