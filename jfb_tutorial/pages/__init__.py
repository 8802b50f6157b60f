"""What the book's pages are made of: claims, figures, explorers, panels that train live."""
