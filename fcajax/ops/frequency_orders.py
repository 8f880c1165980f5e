"""The frequency orders that FcaNet published, as index pairs (u, v) of a 7 x 7 grid.

u runs over height and v over width. `TOP` sorts the accuracies that the paper's Fig. 4 shows (one
frequency at a time, ResNet-50 on ImageNet) from best to worst and `BOT` from worst to best; `LOW`
goes from low to high frequency.

Source: Qin et al., "FcaNet", ICCV 2021, section 4.2 and Fig. 4.
"""

TOP = (
    (0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0),
    (5, 0), (1, 6), (3, 0), (0, 4), (0, 6), (0, 3), (3, 5), (2, 2),
    (4, 6), (6, 3), (3, 3), (5, 3), (5, 5), (2, 1), (6, 1), (5, 2),
    (5, 4), (3, 2), (3, 1), (4, 1), (2, 3), (2, 0), (6, 5), (1, 3),
    (6, 4), (5, 1), (2, 5), (6, 2), (4, 2), (1, 5), (5, 6), (4, 5),
    (4, 4), (2, 4), (1, 1), (4, 3), (2, 6), (3, 6), (3, 4), (1, 4),
    (6, 6),
)

BOT = TOP[::-1]

LOW = (
    (0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 1), (1, 2),
    (2, 2), (0, 3), (3, 0), (4, 0), (0, 4), (1, 3), (3, 1), (0, 5),
    (1, 4), (2, 3), (3, 2), (4, 1), (5, 0), (0, 6), (1, 5), (2, 4),
    (3, 3), (4, 2), (5, 1), (6, 0), (1, 6), (2, 5), (3, 4), (4, 3),
)

ORDERS = {'top': TOP, 'bot': BOT, 'low': LOW}
