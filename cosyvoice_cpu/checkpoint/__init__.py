"""Official checkpoint folders: YAML as data, `.pt` files with weights only, sizes, text files."""
