"""Pytest plugin: files that ask for the same process or server go to one worker of pytest-xdist.

What takes seconds to start is started once then, rather than once a worker. The worker that takes
the first file of a group takes all; other files go one by one to whoever is free (`make test`).
Libraries that take seconds to import (``tests/later.py``) are shared in the same way.
"""

from __future__ import annotations

from typing import Any

import pytest

GROUPS = {  # of two that a file could be in it is in the first
    "faulty": {  # the fixture of tests/e2e/conftest.py
        "tests/e2e/test_fault_clients.py",
        "tests/e2e/test_faults.py",
    },
    "servers": {  # other fixtures there, the browser, and openai
        "tests/e2e/test_access.py",
        "tests/e2e/test_activations.py",
        "tests/e2e/test_bento.py",
        "tests/e2e/test_bento_alone.py",
        "tests/e2e/test_bentoml_clients.py",
        "tests/e2e/test_clients.py",
        "tests/e2e/test_compiled_wheel.py",
        "tests/e2e/test_depends.py",
        "tests/e2e/test_description.py",
        "tests/e2e/test_embedding.py",
        "tests/e2e/test_few_resources.py",
        "tests/e2e/test_framing.py",
        "tests/e2e/test_fuzz.py",
        "tests/e2e/test_grpc.py",
        "tests/e2e/test_home_page.py",
        "tests/e2e/test_inside.py",
        "tests/e2e/test_large_bodies.py",
        "tests/e2e/test_lm_eval.py",
        "tests/e2e/test_models.py",
        "tests/e2e/test_monitoring.py",
        "tests/e2e/test_playground.py",
        "tests/e2e/test_playground_inside.py",
        "tests/e2e/test_playground_links.py",
        "tests/e2e/test_readme.py",
        "tests/e2e/test_replicas.py",
        "tests/e2e/test_report.py",
        "tests/e2e/test_secrets.py",
        "tests/e2e/test_security.py",
        "tests/e2e/test_server.py",
        "tests/e2e/test_steps.py",
        "tests/e2e/test_sweep_command.py",
        "tests/e2e/test_sweeps.py",
        "tests/e2e/test_wheel.py",
        "tests/unit/server/http/test_chat.py",
    },
    "imports": {  # the process of tests/forkserver.py, transformers and bitsandbytes
        "tests/gpu/test_slabs.py",
        "tests/integration/test_branches.py",
        "tests/integration/test_cli_checkpoints.py",
        "tests/integration/test_cli_pull_steps.py",
        "tests/integration/test_cli_sweep.py",
        "tests/integration/test_config_parity.py",
        "tests/integration/test_fuzz_computed.py",
        "tests/integration/test_fuzz_documents.py",
        "tests/integration/test_fuzz_hubs.py",
        "tests/integration/test_fuzz_tensors.py",
        "tests/integration/test_llm_int8.py",
        "tests/integration/test_parity.py",
        "tests/integration/test_pull.py",
        "tests/integration/test_pull_hard.py",
        "tests/integration/test_pull_hostile.py",
        "tests/integration/test_pull_oddities.py",
        "tests/integration/test_pull_steps.py",
        "tests/integration/test_score_ties.py",
        "tests/integration/test_sites.py",
        "tests/unit/checkpoints/test_arriving.py",
        "tests/unit/checkpoints/test_bundled_files.py",
        "tests/unit/checkpoints/test_checkpoint.py",
        "tests/unit/checkpoints/test_held_files.py",
        "tests/unit/checkpoints/test_quantize.py",
        "tests/unit/checkpoints/test_reader.py",
        "tests/unit/checkpoints/test_save.py",
        "tests/unit/checkpoints/test_shelf.py",
        "tests/unit/model/kernels/reference/test_kernels.py",
        "tests/unit/protocol/test_site_names.py",
        "tests/unit/runtime/pool/test_pool.py",
        "tests/unit/runtime/pool/test_shelf.py",
        "tests/unit/runtime/test_arena.py",
        "tests/unit/runtime/test_captured.py",
        "tests/unit/runtime/test_process.py",
        "tests/unit/runtime/test_watchdog.py",
        "tests/unit/server/grpc/test_health.py",
    },
}


def group(nodeid: str) -> str:
    """The name of a test's group, or its file."""
    file = nodeid.split("::", 1)[0]
    return next((name for name, files in GROUPS.items() if file in files), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Sharing(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Sharing(config, log)
