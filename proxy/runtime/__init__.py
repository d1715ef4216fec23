"""What a configuration becomes: long-lived services and one generation at a time."""

from proxy.runtime.generation import Holder, Runtime
from proxy.runtime.routes import Route
from proxy.runtime.services import Services

__all__ = ["Holder", "Route", "Runtime", "Services"]
