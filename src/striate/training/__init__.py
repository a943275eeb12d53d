"""Train a network: `config` (what), `schedule` (rates), `loop` (epochs), `session` and `folder` (the run)."""
