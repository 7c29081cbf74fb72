"""What shoppers did, made into models: matrices in, arrays that PostgreSQL can hold out. No input or output here."""
