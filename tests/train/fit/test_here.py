import subprocess
import sys

import pytest
import torch

from roadseg_train.config import tiny
from roadseg_train.errors import RunError
from roadseg_train.fit.here import train_here
from roadseg_train.fit.plan import WorkerPlan
from roadseg_train.fit.run import RunRecord
from roadseg_train.fit.stop import StopSignals
from roadseg_train.storage.path import storage_path


def test_ray_is_not_needed() -> None:
    words = "import roadseg_train.fit.here, sys; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", words], check=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_gpu_that_is_not_there_is_told() -> None:
    record = RunRecord(config=tiny(), data=[], split="fit", fit_frames=[])
    plan = WorkerPlan(0, num_cpus=1, gpu=True, num_loaders=0, compiled=False)
    with pytest.raises(RunError, match="no GPU that torch can use; leave out --gpu"):
        train_here(storage_path("unused"), record, plan, StopSignals())
