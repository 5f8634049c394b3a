"""Other simulators that read NIR, and whether they do with our files what we do.

``check`` reads the data and the file (`network`), runs our reference (`simulate`, `law`) and each
reader (`readers`: one module per simulator), and compares them (`compare`); `tables` shows it.
torch and the simulators are imported when a reader is asked for, and nowhere else in na_convert.
"""
