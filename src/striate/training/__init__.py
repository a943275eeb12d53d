"""The training engine for every task: options in `config`, the loop in `loop`, a whole run in `run`."""
