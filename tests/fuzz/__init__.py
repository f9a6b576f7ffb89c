"""Fuzzing of what reads foreign bytes. From tests/: `python -m fuzz headers|dicom|decoders --seconds N`.

`headers` and `dicom` run the parsers that are ours, in Python, inside the process, guided by coverage (atheris).
`decoders` sends mutated files of the corpus through real decoder processes, codecs and all: there, what aborts costs a
file and is counted. The contract everywhere: a picture or UnreadableImage, within memory and time.
"""
