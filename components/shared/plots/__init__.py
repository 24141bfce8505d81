"""Pictures and tables of them, drawn with Matplotlib."""
