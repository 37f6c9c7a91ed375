"""What exists: values, errors, names and the ports between rooms. Standard library only; knows no other room."""
