"""Endpoints in a module that imports numpy and pandas; half of them with a memory snapshot."""

import modal

image = modal.Image.debian_slim().pip_install("numpy==2.4.6", "pandas==3.1.1")
app = modal.App("bench-heavy", image=image)

with image.imports():
    import numpy
    import pandas


def endpoint(name: str, snapshot: bool):
    """One endpoint of them."""

    def square(x: int = 3):
        return {"square": int(numpy.square(pandas.Series([x]))[0])}

    square.__name__ = square.__qualname__ = name
    web = modal.fastapi_endpoint()(square)
    return app.function(scaledown_window=2, name=name, enable_memory_snapshot=snapshot)(web)


for n in range(5):
    globals()[f"plain{n}"] = endpoint(f"plain{n}", False)
    globals()[f"snapshot{n}"] = endpoint(f"snapshot{n}", True)
