import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    """These networks are tiny: on shared cores, threads that wait for one another cost far more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
