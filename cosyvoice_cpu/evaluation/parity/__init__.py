"""Two implementations of the stage API compared; `verify`."""
