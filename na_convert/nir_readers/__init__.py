"""Other simulators that read NIR, and whether they do with our files what we do.

``check`` reads the data and the file (`nir_file.read_back`), runs our reference
(`nir_file.simulate`) and each reader (`readers`: one module per simulator), and compares them
(`compare`, with the neurons' law that fits: `law_search`); `tables` shows it.
torch and the simulators are imported when a reader is asked for, and nowhere else in na_convert.
"""
