"""asv's own pages, made to open from a folder: no network, and no XHR, which browsers refuse on ``file://``.

Its scripts and styles come from npm packages at the versions and digests of ``web/package-lock.json``. Each JSON file becomes a script
beside it that hands its value over, and a transport of jQuery fetches that script where asv asks for the JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

FILES = {
    "jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    "jquery.flot.min.js": "flot/jquery.flot.js",
    "jquery.flot.time.min.js": "flot/jquery.flot.time.js",
    "jquery.flot.selection.min.js": "flot/jquery.flot.selection.js",
    "jquery.flot.categories.min.js": "flot/jquery.flot.categories.js",
    "jquery.flot.orderBars.js": "flot-orderbars/js/jquery.flot.orderBars.js",
    "stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
    "md5.min.js": "blueimp-md5/js/md5.min.js",
    "bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    "bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
}
"""What asv's page asks a CDN for -> where a package has it."""
OTHER = ("flot/", "stupid-table-plugin/")
"""Packages whose files differ from the CDN's by minification or a later patch; the bytes of all others are those that asv asks for."""

TRANSPORT = """
var asvFiles = {}, asvNames = new Set(NAMES);
function asvFile(name, value) { asvFiles[name] = value; }
$.ajaxTransport("+json", function (options) {
  var name = decodeURIComponent(options.url.split("?")[0]);
  return {
    send: function (headers, done) {
      if (!asvNames.has(name)) { setTimeout(function () { done(404, "Not Found", {}); }); return; }  // of a benchmark without results
      var script = document.createElement("script");
      script.src = encodeURI(name).replace(/[?#]/g, encodeURIComponent) + ".js";
      script.onload = function () { script.remove(); done(200, "OK", { text: JSON.stringify(asvFiles[name]) }); };
      script.onerror = function () { script.remove(); done(404, "Not Found", {}); };
      document.head.appendChild(script);
    },
    abort: function () {}
  };
});
"""
REMOTE = re.compile(r"""<(script|link)\b[^>]*?\b(?:src|href)="(https?://[^"]+)"[^>]*>""")


def stage(results: Path, config: Path, folder: Path, site: Path) -> bool:
    """asv's own results and a configuration for ``asv publish`` into a folder; answers whether there are any.

    asv takes every JSON file beside its results for one of its own, and fails at those of other sessions.
    """
    loaded = {p: json.loads(p.read_text(encoding="utf-8")) for p in sorted(results.glob("*/*.json"))}
    found = {p: record["results"] for p, record in loaded.items() if "result_columns" in record}
    shutil.rmtree(folder, ignore_errors=True)
    for path in found:
        there = folder / "results" / path.parent.name
        there.mkdir(parents=True, exist_ok=True)
        for each in (path, path.with_name("machine.json")):
            shutil.copy(each, there / each.name)
    if found:
        described = json.loads((results / "benchmarks.json").read_text(encoding="utf-8"))
        measured = {"version", *(name for names in found.values() for name in names)}  # asv would draw an empty tile for any other
        kept = {name: value for name, value in described.items() if name in measured}
        (folder / "results" / "benchmarks.json").write_text(json.dumps(kept), encoding="utf-8")
        told = json.loads(config.read_text(encoding="utf-8"))
        told |= {"results_dir": str(folder / "results"), "html_dir": str(site), "repo": str(config.parents[1]), "branches": ["HEAD"]}
        (folder / "asv.conf.json").write_text(json.dumps(told), encoding="utf-8")
    return bool(found)


def vendor(site: Path, packages: Path) -> None:
    """Put the scripts and styles of the page beside it.

    Raises
    ------
    ValueError
        If asv asks for a file that no package is named for, or a package has other bytes than asv asks for.
    """
    page = site / "index.html"
    text = page.read_text(encoding="utf-8")
    (site / "vendor").mkdir(exist_ok=True)

    def local(found: re.Match[str]) -> str:
        tag, kind, name = found[0], found[1], found[2].rpartition("/")[2]
        if name not in FILES:
            raise ValueError(f"asv's page asks for {found[2]}, and no package is named for it in offline.py.")
        data = (packages / FILES[name]).read_bytes()
        asked = re.search(r'integrity="sha(\d+)-([^"]+)"', tag)
        if (
            asked
            and not FILES[name].startswith(OTHER)
            and base64.b64encode(hashlib.new("sha" + asked[1], data).digest()).decode() != asked[2]
        ):
            raise ValueError(f"{FILES[name]} of the package is not the file whose digest asv's page states.")
        (site / "vendor" / name).write_bytes(data)
        return f'<script src="vendor/{name}">' if kind == "script" else f'<link rel="stylesheet" href="vendor/{name}">'

    text = REMOTE.sub(local, text)
    # The transport needs jQuery, and must be there before asv's own scripts ask for anything.
    text, count = re.subn(r'(<script src="vendor/jquery-[^"]+"></script>)', r'\1\n    <script src="vendor/files.js"></script>', text)
    if count != 1:
        raise ValueError("asv's page no longer loads jQuery as it did: see offline.py.")
    page.write_text(text.replace(' target="_blank"', ' target="_blank" rel="noreferrer"'), encoding="utf-8")


def inline(site: Path) -> int:
    """A script beside each JSON file, and the transport that knows them; answers how many."""
    found = sorted(site.rglob("*.json"))
    for path in found:
        name = path.relative_to(site).as_posix()
        value = path.read_text(encoding="utf-8").replace("\u2028", "\\u2028")
        path.with_name(path.name + ".js").write_text(f"asvFile({json.dumps(name)}, {value});\n", encoding="utf-8")
        path.unlink()
    names = json.dumps([path.relative_to(site).as_posix() for path in found])
    (site / "vendor" / "files.js").write_text(TRANSPORT.replace("NAMES", names), encoding="utf-8")
    return len(found)


def make(site: Path, packages: Path) -> int:
    """Everything for one folder that ``asv publish`` wrote."""
    vendor(site, packages)
    return inline(site)
