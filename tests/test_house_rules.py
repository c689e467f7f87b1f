"""House rules that only a running interpreter can prove."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest


@cache
def loaded_after(statement: str) -> frozenset[str]:
    script = f"{statement}; import sys; print('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return frozenset(out.stdout.split())


@pytest.mark.parametrize("name", ["app.store", "app.api", "app.service", "fastapi", "sqlalchemy", "torch"])
def test_the_worker_child_imports_neither_store_nor_api_and_torch_only_later(name):
    assert name not in loaded_after("import app.worker.child")


@pytest.mark.parametrize("name", ["torch", "cv2", "av", "PIL", "numpy", "alembic"])
def test_the_service_imports_no_framework_and_no_codec(name):
    assert name not in loaded_after("import app.service.main")


def test_the_commands_main_module_costs_a_spawned_worker_nothing():
    assert not {m for m in loaded_after("import app.__main__") if m.startswith(("app.", "typer", "rich"))} - {
        "app.__main__"
    }
