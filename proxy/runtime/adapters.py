"""Where the models' adapters are loaded: most configurations have none."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from proxy.adapters.memory import AdapterMemory
from proxy.config.schema_pools import Model

if TYPE_CHECKING:
    from proxy.adapters.model import ModelAdapters


def adapters_by_model(
    models: Iterable[Model], secret: bytes, memory: AdapterMemory
) -> "dict[str, ModelAdapters]":
    """By model id, those that have any. Reads prompt files; raises OSError."""
    adapted = [model for model in models if model.adapters]
    if not adapted:
        return {}
    from proxy.runtime.model_adapters import adapters_of  # 1.5 MB and 30 ms of every start

    return {model.id: adapters_of(model, secret, memory, vocabulary(model)) for model in adapted}


def vocabulary(model: Model) -> tuple[str, str]:
    """Names what decides how many tokens a prompt has."""
    return model.id, model.upstream_model
