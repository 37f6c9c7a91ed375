"""A neighbour of app.py."""


def area(a: float, b: float) -> float:
    return a * b
