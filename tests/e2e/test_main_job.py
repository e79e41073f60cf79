from pathlib import Path
from tests.e2e.conftest import StartNode
from tests.e2e.judges import assert_converted
from tests.material import ct_series, write_all, mr_series, colour_image
import time

def test_smoke(node: StartNode, tmp_path: Path) -> None:
    t=time.time()
    running = node({})
    print("start", time.time()-t)
    ct = write_all(ct_series(5, 128, 128), tmp_path / "ct")
    us = write_all([colour_image(64, 80, planar=True)], tmp_path / "us")
    running.send([*ct, *us])
    running.wait_for(delivered=6, pending=0)
    print("done", time.time()-t)
    import pydicom
    for path in ct+us:
        assert_converted(path, running.delivered(pydicom.dcmread(path)))
    print(running.log())
    print(running.status())
