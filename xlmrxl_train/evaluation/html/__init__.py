"""Runs as one HTML file that needs no network: `page.to_html`.

`history` reads metrics.jsonl, `mistakes` the predictions, `protocol_card` what else a run's folder says; `scores` and
`figures` put them into the form that page.html, page.css and page.js show. No torch.
"""
