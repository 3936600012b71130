import subprocess
import sys

import pytest
import torch

from roadseg_train.config import tiny
from roadseg_train.errors import RunError
from roadseg_train.fit.local import train_locally
from roadseg_train.fit.options import FitOptions
from roadseg_train.fit.run import RunRecord
from roadseg_train.fit.stop import StopSignals
from roadseg_train.storage.path import storage_path


def test_ray_is_not_needed() -> None:
    words = "import roadseg_train.fit.local, sys; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", words], check=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_gpu_is_reported() -> None:
    record = RunRecord(config=tiny(), data=[], split="fit", fit_frames=[])
    options = FitOptions(0, num_cpus=1, gpu=True, num_loaders=0, compiled=False, checkpoint_every_steps=1)
    with pytest.raises(RunError, match="torch finds no GPU on this machine; leave out --gpu"):
        train_locally(storage_path("unused"), record, options, StopSignals())
