"""Another module of the package."""


def greeting(name: str) -> str:
    return f"Hello {name}!"
