"""Live views: the player that trains, the board that shows it, the panels that say what to draw."""
