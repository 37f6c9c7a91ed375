"""A class with a URL: loaded once in each container, with parameters that requests give in the query.

    portico serve examples/class_endpoint.py
    curl "<the URL>/?word=egg&language=de"

Each language has containers of its own. Those of "en", the default, are there without asking for them.
"""

import modal

app = modal.App("class-endpoint")
DICTIONARIES = {"de": {"egg": "Ei", "nut": "Nuss"}, "fr": {"egg": "oeuf", "nut": "noix"}}


@app.cls()
@modal.concurrent(max_inputs=10)
class Translator:
    language: str = modal.parameter(default="en")

    @modal.enter()
    def load(self):
        self.words = DICTIONARIES.get(self.language, {})

    @modal.fastapi_endpoint()
    def translate(self, word: str):
        return {"language": self.language, "word": self.words.get(word, word)}

    @modal.exit()
    def close(self):
        print(f"closing the dictionary of {self.language}")
