"""`rankone tables`: the paper's tables and figures, measured again on any data set.

plan.py      rows, tables, plans and settings
tables.py    the paper's tables
measure.py   trains and measures one network
book.py      the measurements on disk; what is missing is measured
page.py      a table as a page
plot.py      a table as a picture
write.py     plans, measures and writes all of these
"""
