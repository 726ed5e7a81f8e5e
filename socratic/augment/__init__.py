"""More chains to train on, made from chains: no teacher, and every new answer is calculated, none is guessed."""
