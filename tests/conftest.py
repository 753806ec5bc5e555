import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # as many processes as cores: more threads than one each would wait for one another
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from browsing import browser as browser


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Whoever asks for a browser is a test of the pages: `make test-web`."""
    for item in items:
        if "browser" in item.fixturenames:
            item.add_marker("web")
