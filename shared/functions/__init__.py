"""The functions beside the mission, as blueprints, and what all functions have in common."""
