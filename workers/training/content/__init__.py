"""What items have in common by text and photos, made into lists: vectors in, arrays that PostgreSQL can hold out."""
