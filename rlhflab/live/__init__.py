"""Live views: the player that runs a training, and the board that shows it."""
