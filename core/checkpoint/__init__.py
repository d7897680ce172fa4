"""Files or a Hub repository -> config, weights and adapters, strictly."""
