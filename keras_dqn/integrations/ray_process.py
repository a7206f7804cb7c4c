"""What a worker process of Ray runs. It is sent by value, and imports the package without Keras."""

from typing import Any


class Worker:
    """A `CollectWorker` that gets its parts pickled, after the package was prepared."""

    def start(self, settings: bytes, state: Any) -> None:
        """Makes the worker from pickled `WorkerSettings` and the state of an earlier one."""
        from ray import cloudpickle

        prepare_package()
        from keras_dqn.acting.collect_worker import CollectWorker

        self.worker = CollectWorker(cloudpickle.loads(settings), state)

    def set_policy(self, needs_keras: bool, *parts: bytes) -> None:
        """Takes the parts of a pickled policy."""
        from ray import cloudpickle

        if needs_keras:
            import keras_dqn

            keras_dqn.DQN  # noqa: B018 - loads the package, which registers its classes
        self.worker.set_policy(cloudpickle.loads(b"".join(parts)))

    def collect(self, order: Any, *parts: bytes) -> Any:
        """Takes the steps of an `Order` with pickled weights, if any, and returns `Collected`."""
        from ray import cloudpickle

        weights = cloudpickle.loads(b"".join(parts)) if parts else None
        return self.worker.collect(order, weights)

    def get_state(self) -> dict:
        """Returns the state of the worker."""
        return self.worker.get_state()

    def process(self) -> dict:
        """Returns the number of this process, and whether it has loaded `keras`."""
        import os
        import sys

        return {"pid": os.getpid(), "keras": "keras" in sys.modules}


def prepare_package() -> None:
    """Lets the modules of the package be imported one by one, without `keras_dqn/__init__.py`.

    The public names, which need Keras, are loaded when an environment asks for one of them.
    """
    import importlib
    import importlib.util
    import sys
    import types

    if "keras_dqn" in sys.modules:
        return
    spec = importlib.util.find_spec("keras_dqn")
    loader = None if spec is None else spec.loader
    if spec is None or loader is None:
        raise ImportError("keras_dqn must be installed where the workers run")
    package: Any = types.ModuleType("keras_dqn")
    package.__path__ = spec.submodule_search_locations
    package.__spec__, package.__file__ = spec, spec.origin

    def load(name: str) -> Any:
        if name.startswith("__") and name not in ("__all__", "__version__"):
            raise AttributeError(name)
        if importlib.util.find_spec(f"keras_dqn.{name}") is not None:
            return importlib.import_module(f"keras_dqn.{name}")
        del package.__getattr__
        loader.exec_module(package)
        return getattr(package, name)

    package.__getattr__ = load
    sys.modules["keras_dqn"] = package
