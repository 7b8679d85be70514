"""The dashboard: results in the repository -> ``site/index.html`` and the pictures of the README.

about.py     where and of what something was measured: written into every record, read for the page
support.py   what each backend can do with each metric, asked of the code that decides
results.py   the files in ``results/<machine>/`` as values
charts.py    values -> marks: ratios on a log axis, curves against n
answers.py   what the figures say, in sentences
sections.py  the parts of the page, each with a worded gap where its results are missing
page.py      the page
pictures.py  the SVG of the README
offline.py   asv's own pages without network and without XHR
"""
