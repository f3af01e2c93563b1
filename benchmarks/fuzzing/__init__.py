"""Bad input by the thousand: four kinds of it, what they share, and the workers that they are tried in.

inputs, kinds       what an input is, and how it follows from its name
judge               what came of one: its outcome
worker, pool        processes in which memory and time are bounded
material            valid files, which are the start of bad ones
odd, mutate, structure, containers      texts, values and files that nobody expects
command_line, files, api, bits          the kinds
report              what a run found
"""
