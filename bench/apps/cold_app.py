"""Many functions, so that a round of cold starts does not wait for each of them to scale to zero."""

import modal

app = modal.App("cold")


def endpoint(number: int):
    """One endpoint of them."""

    def square(x: int = 3):
        return {"square": x**2}

    square.__name__ = square.__qualname__ = f"square{number}"
    web = modal.fastapi_endpoint()(square)
    return app.function(scaledown_window=2, serialized=False, name=f"square{number}")(web)


for n in range(25):
    globals()[f"square{n}"] = endpoint(n)
