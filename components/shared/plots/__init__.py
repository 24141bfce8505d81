"""Pictures and tables of them, drawn with Matplotlib."""

from matplotlib import rcParams

# Names from the data are drawn as they are written: Matplotlib would read what stands between two $ as mathematics.
rcParams["text.parse_math"] = False
