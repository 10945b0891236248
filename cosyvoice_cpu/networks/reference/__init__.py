"""The official form: attribute names are tensor names, arithmetic is the original's."""
