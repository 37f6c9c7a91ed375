"""The same endpoints as in heavy_app.py, in a module that imports nothing heavy."""

import modal

app = modal.App("bench-light")


def endpoint(name: str):
    """One endpoint of them."""

    def square(x: int = 3):
        return {"square": x**2}

    square.__name__ = square.__qualname__ = name
    return app.function(scaledown_window=2, name=name)(modal.fastapi_endpoint()(square))


for n in range(5):
    globals()[f"light{n}"] = endpoint(f"light{n}")
