"""Where policies act: gymnasium's environments by name, games for two, and environments that can be brought back."""
