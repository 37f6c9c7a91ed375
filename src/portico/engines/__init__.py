"""What starts containers: processes on this machine, and the double that tests use."""
