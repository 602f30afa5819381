"""Names at the places where Jina has them, so that programs written for it change one word of an import."""
