"""Markdown made of the report's page."""

from __future__ import annotations

from components.shared.evaluation.markdown import excerpt, to_markdown

PAGE = """<html><head><title>no</title><style>p { a: b }</style></head><body>
<h1>Of a &amp; b</h1><nav><a href="#x">no</a></nav>
<div class="box"><p><strong>good</strong>,
  and <em>sure</em></p><ul><li>one</li><li><img src="x" alt="no"><span>two <small>2</small></span></li></ul></div>
<h2 id="x">Numbers</h2>
<table><tr><th>a|b</th><th>n</th></tr><tr><td>x<br><small>y</small></td><td></td></tr></table>
<details><summary>no</summary><table><tr><td>no</td></tr></table></details>
<table><tr><td>k</td><td><code>v</code> &lt;b&gt;</td></tr><tr><td>l</td><td>w</td></tr></table>
<figure data-file="one.png" data-alt="what is seen"><svg><title>no</title><text>no</text></svg>
<figcaption>Below.</figcaption></figure>
<h2>Again</h2><pre>make &amp;&amp; repro</pre></body></html>"""

TEXT = """# Of a & b

**good**, and *sure*

- one
- two 2

## Numbers

| a\\|b | n |
| --- | --- |
| x y |  |

|  |  |
| --- | --- |
| k | `v` &lt;b> |
| l | w |

![what is seen](one.png)

Below.

## Again

```sh
make && repro
```
"""


def test_a_page_becomes_markdown_without_what_is_folded_or_drawn():
    assert to_markdown(PAGE) == TEXT


def test_an_excerpt_has_whole_sections_and_no_pictures():
    assert excerpt(TEXT) == TEXT.replace("![what is seen](one.png)\n\n", "")
    short = excerpt(TEXT, 170)
    assert short.startswith("# Of a & b") and "Numbers" in short and "Again" not in short
    assert short.endswith("The rest stands in report.html and report.md.\n")
    assert excerpt(TEXT, 60).count("##") == 0
