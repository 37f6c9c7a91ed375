"""A module of the package."""


def plural(word: str) -> str:
    return f"{word}s"
