"""The pictures and maps that people look at."""
