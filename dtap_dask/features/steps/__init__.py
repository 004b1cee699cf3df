"""Operations, by family, and the names that job files give them."""
