"""The official form: attributes lead to official tensor names, arithmetic is the original's."""
