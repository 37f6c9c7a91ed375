"""A package with an app:  portico serve -m pkg.web  from the folder that has it."""
