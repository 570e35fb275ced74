import numpy as np

from ich_lstm.phantom.scanner.slab import Slab, bounding_box


def test_a_box_around_one_sample_can_be_asked_what_is_near():
    wanted = np.zeros((1, 9, 9), bool)
    assert bounding_box(wanted) is None
    wanted[0, 4, 6] = True
    box = bounding_box(wanted)
    assert wanted[box].sum() == 1
    y, x = np.meshgrid(np.arange(9, dtype=np.float32), np.arange(9, dtype=np.float32), indexing="ij")
    part = Slab(x[None], y[None], np.zeros((1, 9, 9), np.float32), 1.0).cut(box)
    assert part.near((6.0, 4.0, 0.0), 2.0) is not None
    assert part.near((6.0, 4.0, 30.0), 2.0) is None
