"""Several runs in one report: seeds folded, runs side by side and tested in pairs, beside published scores.

`reading` reads run folders; `folding`, `pairing`, `published` and `xtreme` compute; `comparing` puts what they find
into one `Comparison`; `page` and `writing` show it. No torch: `xlmrxl report` starts at once.
"""
