import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from restain import RestainError
from restain.bundle import Bundle
from restain.slides.store_view import StoreView
from restain.stain import Model, StainOptions, find_sources, stain_many
from restain.stain.cluster import Cluster, stain_on_cluster

cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Two nodes of one worker each."""
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


def workers() -> list[int]:
    """Processes that stain at the moment; Ray names them after what they run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"ray::_stain" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_a_worker_is_killed_and_every_slide_comes_out_whole(
    address: str, slide: Path, bundle: Bundle, tmp_path: Path
) -> None:
    for number in range(3):
        shutil.copy(slide, tmp_path / f"block_{number}.ome.tiff")
    sources = find_sources([tmp_path])
    options = StainOptions(engine="eager-fp32")
    out, killed, done = tmp_path / "out", [], threading.Event()

    def kill() -> None:
        while not killed and not done.is_set():
            stores = [folder for folder in out.glob("*.rgb.part") if StoreView(folder).refresh()]
            running = workers()
            if stores and running:
                os.kill(running[0], signal.SIGKILL)
                killed.append(running[0])
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        outcomes = stain_on_cluster(sources, out, bundle, options, cluster=Cluster(address, cpus=1))
    finally:
        done.set()
        killer.join()
    assert killed
    assert [outcome.outcome for outcome in outcomes] == ["stained"] * 3, [outcome.fault for outcome in outcomes]
    stain_many(sources[:1], tmp_path / "here", Model(bundle), options)
    expected = tifffile.imread(tmp_path / "here" / "block_0.ome.tiff", key=0)
    for outcome in outcomes:
        assert outcome.result is not None
        np.testing.assert_array_equal(tifffile.imread(outcome.result, key=0), expected)
    assert not list(out.glob("*.part"))
    lines = (out / "summary.csv").read_text().splitlines()
    assert len(lines) == 4
    assert all(",stained," in line for line in lines[1:])


def test_no_cluster_is_one_sentence(bundle: Bundle, slide: Path, tmp_path: Path) -> None:
    with pytest.raises(RestainError, match="no Ray cluster answers there"):
        stain_on_cluster(find_sources([slide]), tmp_path, bundle, cluster=Cluster("127.0.0.1:1"))
