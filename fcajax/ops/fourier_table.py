"""Measured times of the two implementations of the Fourier transform, which 'auto' compares.

A measured platform has rows (size, milliseconds of 'fft', milliseconds of 'dft') for float32 and
bfloat16, where size is the side of a square map. A platform that was not measured has a rule: take
'dft' up to this size. `python -m benchmarks.accelerator.fourier_table --update` writes this file.
"""

TABLE = {
    'cpu': {
        'device': 'cpu',
        'jax': '0.10.2',
        'float32': (
            (2, 10.527, 3.33),
            (4, 6.297, 2.772),
            (7, 5.398, 3.381),
            (8, 4.754, 2.45),
            (11, 5.118, 2.836),
            (14, 4.639, 2.656),
            (16, 3.899, 2.449),
            (20, 4.395, 3.148),
            (28, 4.252, 3.401),
            (32, 4.091, 3.357),
            (40, 3.575, 3.716),
            (56, 3.377, 3.794),
            (64, 4.224, 4.979),
            (80, 2.237, 3.647),
            (112, 7.281, 10.456),
            (128, 6.464, 11.799),
            (160, 15.45, 25.866),
            (224, 25.926, 63.442),
        ),
        'bfloat16': (
            (2, 14.929, 12.28),
            (4, 9.227, 9.167),
            (7, 5.95, 3.977),
            (8, 5.231, 2.893),
            (11, 5.464, 3.281),
            (14, 5.079, 3.043),
            (16, 4.303, 2.802),
            (20, 4.198, 3.257),
            (28, 4.27, 3.315),
            (32, 6.427, 5.013),
            (40, 3.767, 3.537),
            (56, 3.366, 5.07),
            (64, 4.045, 6.588),
            (80, 3.438, 4.51),
            (112, 5.574, 8.599),
            (128, 7.097, 11.569),
            (160, 10.836, 18.198),
            (224, 29.9, 50.338),
        ),
    },
    'gpu': {'dft_up_to': 64},
    'tpu': {'dft_up_to': 256},
}
