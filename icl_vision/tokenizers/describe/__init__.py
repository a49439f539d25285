"""A picture in words with named parts: what each part is made of."""
