"""The management commands, where Django looks for them."""
