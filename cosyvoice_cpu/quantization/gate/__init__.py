"""The quality gate: accuracy of each component, then words and voices of the whole bundle."""
