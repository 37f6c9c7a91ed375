"""`import modal`, answered by Portico: this module takes itself out of the way and puts `portico` in its place."""

from portico.sdk import alias

alias.install()
